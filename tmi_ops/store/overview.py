"""All backups of the store, read in a few requests however many there are.

1. The newest folders of each kind are listed object by object in one request: a document whose ETag equals the
   catalogue's is taken from there, any other is read from its own key. New, removed and altered documents all show.
2. Older folders are listed by name: those missing from the catalogue are read, those missing from the store are gone. A
   few of them are also listed object by object, different ones each time, because guards list no names and some servers
   keep listing the name of a folder that was emptied by hand.
3. Documents with an announced change (`changes.py`) are read from their own key, wherever they are.

Without a trusted catalogue everything is listed and read, and the catalogue is written from that.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import takewhile
from typing import Literal

from tmi_ops.errors import IntegrityError, ObjectExistsError, ObjectMissingError, OpsError
from tmi_ops.store.changes import ABANDONED, DRILLS, Change, announce, changes_in
from tmi_ops.store.folders import HOLD, SEALED, SIGNATURE, VERIFICATION_PREFIX, Folder, folders_of, kind_of, older_than
from tmi_ops.store.guarding import store_clock
from tmi_ops.store.manifest import KINDS, Kind
from tmi_ops.store.objects import ListedObject, ObjectStore
from tmi_ops.store.seen import newest_catalogue
from tmi_ops.store.small_objects import get_single
from tmi_ops.store.stored_catalogue import (
    CATALOGUE,
    CATALOGUE_FOLDER,
    DRILL_FOLDER,
    LARGEST_DOCUMENT,
    Document,
    StoredCatalogue,
    is_drill,
    read_stored,
    write_stored,
)

# `recent`: older folders are taken from the catalogue, and checked by the next more thorough reading. For guards.
# `whole`: every object is listed. For what removes something.
Thoroughness = Literal["recent", "names", "whole"]
# The evidence that a forecast uses.
DRILLS_KEPT = 8
READERS = 16
# One page of a listing has a thousand objects, and reading a page takes as long as a request.
_LISTED = 400
# With more unknown folders than this, one listing of everything is cheaper.
_FEW = 24
# A reader that had to read this many documents itself writes the catalogue, to spare the next one that.
_WORTH_KEEPING = 40
_ATTEMPTS = 6
# How long the same older folders are listed object by object.
_SPOT_S = 60.0
# A catalogue is later than the one it replaces.
_LATER = timedelta(microseconds=1)


@dataclass(frozen=True)
class Overview:
    """Every backup's folder by id, with or without a manifest, and the documents needed to judge the backups.

    A folder that is unchanged is the stored catalogue's own instance, so that nothing is computed again for it.

    Args:
        documents: by key, those read from their own keys, and the evidence of drills.
        drills: keys of the newest drills' evidence, newest first; `apart`: of it, what exists but is not at hand.
        changes: announced, and not in the stored catalogue yet.
        stored, etag: the catalogue that this was made with; `etag` is None if there was none.
        fetched: the number of documents read from their own keys.
    """

    folders: Mapping[str, Folder]
    documents: Mapping[str, Document]
    drills: tuple[str, ...] = ()
    apart: frozenset[str] = frozenset()
    changes: tuple[Change, ...] = ()
    announced: tuple[Change, ...] = ()
    stored: StoredCatalogue = field(default_factory=StoredCatalogue)
    etag: str | None = None
    kinds: tuple[Kind, ...] = KINDS
    fetched: int = 0

    @cached_property
    def committed(self) -> tuple[Folder, ...]:
        """Folders with a manifest, of the kinds that were read, sorted by id."""
        found = [one for one in self.folders.values() if one.manifest_at is not None and one.kind in self.kinds]
        return tuple(sorted(found, key=lambda one: one.backup_id))

    @property
    def differs(self) -> bool:
        """Whether the stored catalogue is out of date."""
        return self.fetched > 0 or {one.backup_id for one in self.committed} != set(self.stored.folders)

    def document(self, key: str) -> Document | None:
        """A document that is at hand: as it was read, or from the catalogue if the listing shows the same ETag."""
        if (read := self.documents.get(key)) is not None:
            return read
        known = self.stored.documents.get(key)
        folder = None if known is None else self.folders.get(key.split("/")[1])
        if known is None or folder is None or not known.etag or folder.etags.get(key) != known.etag:
            return None
        return known

    def has_at_hand(self, folder: Folder) -> bool:
        """Whether a folder's documents can be read without a request."""
        return folder.manifest in folder.etags and (
            self._is_stored(folder) or all(self.document(key) is not None for key in folder.etags)
        )

    def state_of(self, folder: Folder) -> bytes | None:
        """A digest of a folder's documents; None if one of them is not at hand."""
        is_stored = self._is_stored(folder)
        if is_stored and (known := self.stored.states.get(folder.backup_id)) is not None:
            return known
        if not self.has_at_hand(folder):
            return None
        digest = hashlib.sha256(f"{folder.backup_id} {folder.parts}\n".encode())
        for key in folder.etags:
            if (document := self.document(key)) is None:
                return None
            digest.update(f"{key} {hashlib.sha256(document.data).hexdigest()}\n".encode())
        state = digest.digest()
        if is_stored:
            self.stored.states[folder.backup_id] = state
        return state

    def _is_stored(self, folder: Folder) -> bool:
        return folder is self.stored.folders.get(folder.backup_id)

    def over(self, store: ObjectStore) -> ObjectStore:
        """A store handle that answers from this overview if it can. Only for judging; changes need the store itself."""
        return replace(store, at_hand=self._at_hand)

    def _at_hand(self, key: str) -> bytes | None:
        """The document's bytes; None if it is known to be absent.

        Raises:
            LookupError: the store must be read.
        """
        document = self.document(key)
        if document is not None:
            return document.data
        kind, _, below = key.partition("/")
        backup_id, _, name = below.partition("/")
        folder = self.folders.get(backup_id)
        of_drill = kind == DRILL_FOLDER and key.removesuffix(SIGNATURE).removesuffix(SEALED) in self.drills
        if of_drill and key not in self.apart:
            return None
        known = folder is not None and kind_of(backup_id) == kind and key not in folder.etags
        if known and name.startswith((HOLD, VERIFICATION_PREFIX)):
            return None
        raise LookupError(key)


def overview(
    store: ObjectStore,
    kinds: Sequence[Kind] = KINDS,
    thoroughness: Thoroughness = "names",
    *,
    anew: bool = False,
    doubting: Iterable[str] = (),
) -> Overview:
    """Read the state of the store.

    Args:
        anew: trust no catalogue.
        doubting: subjects to read from their own keys, announced or not.

    Raises:
        StoreError: the store failed.
    """
    listed = list(store.list_objects(f"{CATALOGUE_FOLDER}/"))
    stored, etag = (StoredCatalogue(), _etag(listed)) if anew else _stored(store, listed)
    announced = changes_in(listed)
    changes = [change for change in announced if change.name not in stored.told]
    doubted = {change.subject for change in changes} | set(doubting)
    turn = int(time.time() // _SPOT_S)
    with ThreadPoolExecutor(READERS, thread_name_prefix="catalogue") as pool:
        folders = stored.besides(kinds)

        def look(kind: Kind) -> dict[str, Folder]:
            mine = turn // len(kinds) if kinds[turn % len(kinds)] == kind else None
            return _look(store, kind, stored, doubted, thoroughness, mine)

        for found in pool.map(look, kinds):
            folders |= found
        drills = stored.drills if stored.drills is not None and DRILLS not in doubted else None
        evidence = _list_drills(store) if drills is None else {}
        changed = [one for one in folders.values() if one is not stored.folders.get(one.backup_id)]
        wanted = {key: tag for folder in changed if folder.manifest_at for key, tag in folder.etags.items()}
        of_drills = evidence if drills is None else {key: one.etag for key, one in stored.evidence.items()}
        missing = _missing(stored, wanted | of_drills)
        documents = {key: stored.documents[key] for key in of_drills.keys() - missing}
        for key, document in zip(missing, pool.map(lambda key: _fetch(store, key), missing), strict=True):
            if document is not None:
                documents[key] = document
    apart = stored.apart if drills is not None else frozenset(key for key in evidence if key not in documents)
    keys = tuple(key for key in evidence if key.endswith(".json")) if drills is None else drills
    view = Overview(
        folders=folders,
        documents=documents,
        drills=tuple(sorted(keys, reverse=True)),
        apart=apart,
        changes=tuple(changes),
        announced=tuple(announced),
        stored=stored,
        etag=etag,
        kinds=tuple(kinds),
        fetched=len(missing),
    )
    gone = etag is not None and not stored.folders.keys() <= folders.keys()
    if not anew and (view.fetched >= _WORTH_KEEPING or gone or (thoroughness == "whole" and etag and view.differs)):
        with suppress(OpsError):  # without the right to write it we only read more
            keep(store, view)
    return view


def keep(store: ObjectStore, view: Overview, own: Iterable[Change] = ()) -> None:
    """Store the overview as the catalogue.

    Args:
        own: announcements of the caller whose changes were done before the overview was read.

    Raises:
        ObjectExistsError: another writer replaced it since.
        UntrustedError, StoreError: this host may not write it, or the store failed.
    """
    there = {change.name for change in view.announced}
    told = (view.stored.told & there) | {change.name for change in own}
    told |= {change.name for change in _abandoned(store, view.changes)}
    folders = {one: folder for one, folder in view.folders.items() if folder.manifest_at is not None}
    if set(view.kinds) != set(KINDS):
        folders = {**view.stored.besides(view.kinds), **folders}
        if view.etag is None:
            return  # a catalogue of only some kinds would say that the others are empty
    keys = [key for folder in folders.values() for key in folder.etags]
    keys += [key for key in view.documents if is_drill(key)]
    documents = {key: document for key in keys if (document := view.document(key)) is not None}
    made_at = max(datetime.now(UTC), max(view.stored.made_at, newest_catalogue(store)) + _LATER)
    write_stored(
        store, StoredCatalogue(folders, documents, frozenset(told), view.drills, made_at, view.apart), view.etag
    )
    over = [change.key for change in view.announced if change.name in told]
    with suppress(OpsError):  # without the right to delete, leave it to whoever removes backups
        store.delete(over + [change.key for change in own if change.key not in over])


def rebuild(store: ObjectStore) -> Overview:
    """Write the catalogue again from the manifests, verification results, holds and drills themselves.

    Raises:
        UntrustedError, StoreError: this host may not write it, or the store failed.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        view = overview(store, thoroughness="whole", anew=True)
        try:
            keep(store, view)
        except ObjectExistsError:
            if attempt == _ATTEMPTS:
                raise
            continue
        return view
    raise AssertionError


@contextmanager
def changing(store: ObjectStore, *subjects: str) -> Iterator[None]:
    """Announce a change of these backups, and update the catalogue after the block.

    If the catalogue cannot be written then, it stays doubted about these backups, which is no failure.

    Raises:
        StoreError: the store failed for now (a transient error), so the block was not run.
    """
    announced = announce(store, subjects)
    if not announced:  # nothing to announce, or no right to announce it
        yield
        return
    try:
        yield
    except BaseException:
        with suppress(OpsError):
            _tell(store, announced)
        raise
    with suppress(OpsError):
        _tell(store, announced)


def _tell(store: ObjectStore, own: Sequence[Change]) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            # Doubt them also if another process took the announcement for an abandoned one meanwhile.
            doubting = {change.subject for change in own}
            keep(store, overview(store, thoroughness="recent", doubting=doubting), own)
        except ObjectExistsError:
            if attempt == _ATTEMPTS:
                raise
        else:
            return


def _abandoned(store: ObjectStore, changes: Iterable[Change]) -> list[Change]:
    """Announcements whose writers are dead, by the clock that stamped them: ours may have jumped."""
    ours = datetime.now(UTC)
    old = [change for change in changes if ours - change.at > ABANDONED]
    if not old:
        return []
    now = store_clock(store)
    return [change for change in old if now - change.at > ABANDONED]


def _etag(listed: Iterable[ListedObject]) -> str | None:
    return next((item.etag for item in listed if item.key == CATALOGUE), None)


def _stored(store: ObjectStore, listed: Iterable[ListedObject]) -> tuple[StoredCatalogue, str | None]:
    """The stored catalogue, and the ETag of the object even if it is not trusted."""
    etag = _etag(listed)
    if etag is None:
        return StoredCatalogue(), None
    return read_stored(store, etag) or (StoredCatalogue(), etag)


def _look(
    store: ObjectStore,
    kind: Kind,
    stored: StoredCatalogue,
    doubted: set[str],
    thoroughness: Thoroughness,
    turn: int | None,
) -> dict[str, Folder]:
    """The folders of a kind. `turn`: which older ones are listed object by object; None for none."""
    known = stored.by_kind[kind]
    first = "" if thoroughness == "whole" else first_listed(list(known.values()))
    found = _by_id(_listed(store, kind, first), known)
    if not first:
        return found
    names = store.list_folders(kind) if thoroughness == "names" else None
    believed, unknown = older_than(first, known, names, doubted)
    if len(unknown) > _FEW:
        return _by_id(_listed(store, kind, ""), known)
    for one in unknown:
        found |= _by_id(folders_of(store.list_objects(f"{kind}/{one}/")), known)
    spot = [] if turn is None else spot_of([known[one] for one in sorted(believed)], turn)
    if spot:
        there = _by_id(_listed(store, kind, spot[0], spot[-1]), known)
        believed -= set(spot)
        found |= {one: there[one] for one in spot if one in there}
    return {**{one: known[one] for one in believed}, **found}


def _by_id(found: Iterable[Folder], known: Mapping[str, Folder]) -> dict[str, Folder]:
    """Folders by id, using the known instance of each unchanged one."""
    there = ((one, known.get(one.backup_id)) for one in found)
    return {one.backup_id: was if was is not None and one.is_as(was) else one for one, was in there}


def spot_of(folders: Sequence[Folder], turn: int) -> list[str]:
    """The ids of adjacent folders that one request lists: others at each turn, all of them in the end. Pure.

    Args:
        folders: sorted by id.
    """
    spots: list[list[str]] = []
    room = 0
    for folder in folders:
        room -= folder.objects
        if not spots or room < 0:
            spots.append([])
            room = _LISTED - folder.objects
        spots[-1].append(folder.backup_id)
    return spots[turn % len(spots)] if spots else []


def first_listed(known: Sequence[Folder]) -> str:
    """The id from which on folders are listed object by object, in one request; empty for all of them. Pure."""
    room = _LISTED
    newest_first = sorted(known, key=lambda folder: folder.backup_id, reverse=True)
    for number, folder in enumerate(newest_first):
        room -= folder.objects
        if room < 0:
            return newest_first[max(0, number - 1)].backup_id
    return ""


def _listed(store: ObjectStore, kind: Kind, first: str, last: str = "") -> Iterator[Folder]:
    """The folders from `first` on, up to `last` if given."""
    # Some servers (SeaweedFS) take a start key that equals a folder's name for that folder, and skip its content.
    listed = store.list_objects(f"{kind}/", after=f"{kind}/{first[:-1]}" if first else "")
    return folders_of(takewhile(lambda item: not last or item.key < f"{kind}/{last}0", listed))


def _list_drills(store: ObjectStore) -> dict[str, str]:
    """Key and ETag of the newest drills' evidence, with signatures and encrypted copies."""
    etags = {item.key: item.etag for item in store.list_objects(f"{DRILL_FOLDER}/")}
    newest = sorted((key for key in etags if key.endswith(".json")), reverse=True)[:DRILLS_KEPT]
    wanted = [f"{key}{ending}" for key in newest for ending in ("", SIGNATURE, SEALED, f"{SEALED}{SIGNATURE}")]
    return {key: etags[key] for key in wanted if key in etags}


def _missing(stored: StoredCatalogue, wanted: Mapping[str, str]) -> list[str]:
    """The keys of the wanted documents that are not at hand. `wanted`: ETag by key."""
    known = ((key, etag, stored.documents.get(key)) for key, etag in wanted.items())
    return [key for key, etag, document in known if document is None or not etag or document.etag != etag]


def _fetch(store: ObjectStore, key: str) -> Document | None:
    """None if it is gone or damaged: a reader of its own key gets the error."""
    try:
        data, head = get_single(store, key, limit=LARGEST_DOCUMENT)
    except (ObjectMissingError, IntegrityError):
        return None
    return Document(head.etag, data)
