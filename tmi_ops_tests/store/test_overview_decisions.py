"""What a look takes from the stored catalogue, decided from built facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tmi_ops.store.folders import Folder
from tmi_ops.store.overview import Overview
from tmi_ops.store.stored_catalogue import Document, StoredCatalogue, decoded, encoded

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
BASE, DUMP = "20261127T020000Z-base-0001", "20261127T020000Z-logical-0002"
MANIFEST, HOLD = f"base/{BASE}/manifest.json", f"base/{BASE}/hold.json"
VERIFICATION = f"base/{BASE}/verdict-20261127T030000000000Z-0a1b.json"


def folder(etags: Mapping[str, str], parts: int = 2, backup_id: str = BASE) -> Folder:
    return Folder(backup_id, 10, 4, NOW, NOW, None, held=False, parts=parts, etags=dict(etags))


def stored(etags: Mapping[str, str], parts: int = 2) -> StoredCatalogue:
    """With a document of each key, which says its key."""
    documents = {key: Document(etag, f"..{key}..".encode(), 2, 2 + len(key)) for key, etag in etags.items()}
    return StoredCatalogue({BASE: folder(etags, parts)}, documents)


def seen(known: StoredCatalogue, there: Folder | None, read: Mapping[str, Document] | None = None) -> Overview:
    return Overview({} if there is None else {there.backup_id: there}, read or {}, stored=known)


def test_a_document_is_the_catalogues_where_the_listing_shows_the_same() -> None:
    known = stored({MANIFEST: "a", HOLD: "b"})
    same = seen(known, known.folders[BASE])
    assert same.document(MANIFEST) == known.documents[MANIFEST]
    assert known.documents[MANIFEST].data == MANIFEST.encode()
    assert seen(known, folder({MANIFEST: "other"})).document(MANIFEST) is None
    assert seen(known, folder({MANIFEST: "a"})).document(HOLD) is None, "the hold was released"
    assert seen(known, None).document(MANIFEST) is None
    assert same.document(f"base/{BASE}/verdict-x.json") is None
    read = Document("c", b"as it was read")
    assert seen(known, folder({MANIFEST: "c"}), {MANIFEST: read}).document(MANIFEST) is read


def test_without_etags_no_document_is_known_to_be_the_same() -> None:
    known = stored({MANIFEST: ""})
    assert seen(known, folder({MANIFEST: ""})).document(MANIFEST) is None


def test_what_is_known_of_a_folder_is_answered_without_the_store() -> None:
    known = stored({MANIFEST: "a"})
    view = seen(known, known.folders[BASE])
    assert view._at_hand(MANIFEST) == MANIFEST.encode()
    assert view._at_hand(HOLD) is None
    for key in (
        f"base/{BASE}/SHA256SUMS",
        f"logical/{BASE}/hold.json",
        f"logical/{DUMP}/hold.json",
        "wal/1/lease.json",
    ):
        with pytest.raises(LookupError):
            view._at_hand(key)


@pytest.mark.parametrize(
    ("there", "is_as"),
    [
        (folder({MANIFEST: "a"}), True),
        (folder({MANIFEST: "b"}), False),
        (folder({MANIFEST: "a", HOLD: "h"}), False),
        (folder({MANIFEST: "a"}, parts=1), False),
        (replace(folder({MANIFEST: "a"}), verification=VERIFICATION), False),
        (replace(folder({MANIFEST: "a"}), held=True), False),
    ],
)
def test_a_folder_in_which_anything_changed_is_another(there: Folder, *, is_as: bool) -> None:
    assert there.is_as(folder({MANIFEST: "a"})) is is_as


def test_a_folder_without_etags_or_that_nobody_knew_is_another() -> None:
    assert not folder({MANIFEST: ""}).is_as(folder({MANIFEST: ""}))
    assert not folder({MANIFEST: "a"}).is_as(None)


def test_the_state_of_a_folder_is_its_documents_its_parts_and_its_name() -> None:
    known = stored({MANIFEST: "a", VERIFICATION: "v"})
    view = seen(known, known.folders[BASE])
    state = view.state_of(known.folders[BASE])
    assert state is not None
    assert known.states == {BASE: state}
    assert view.state_of(known.folders[BASE]) is state
    assert view.state_of(folder({MANIFEST: "a", VERIFICATION: "v"})) == state, (
        "a folder that was listed, of the same bytes"
    )
    other = {
        view.state_of(folder({MANIFEST: "a", VERIFICATION: "v"}, parts=1)),
        view.state_of(folder({MANIFEST: "a"})),
        seen(known, folder({MANIFEST: "a", VERIFICATION: "w"}), {VERIFICATION: Document("w", b"failed")}).state_of(
            folder({MANIFEST: "a", VERIFICATION: "w"})
        ),
    }
    assert len(other - {state, None}) == 3
    assert known.states == {BASE: state}, "what is not the catalogue's own is not remembered as its"


def test_a_folder_whose_manifest_is_not_at_hand_has_no_state() -> None:
    known = stored({VERIFICATION: "v"})
    view = seen(known, known.folders[BASE])
    assert not view.has_at_hand(known.folders[BASE])
    assert view.state_of(known.folders[BASE]) is None
    changed = folder({MANIFEST: "b"})
    assert seen(stored({MANIFEST: "a"}), changed).state_of(changed) is None


def test_the_catalogue_is_read_back_document_by_document() -> None:
    known = stored({MANIFEST: "a", VERIFICATION: "v"})
    read = decoded(encoded(known))
    assert read is not None
    assert {key: (one.etag, one.data) for key, one in read.documents.items()} == {
        key: (one.etag, one.data) for key, one in known.documents.items()
    }
    assert read.folders == known.folders
    assert dict(read.by_kind["base"]) == read.folders
    assert read.besides(["base"]) == {}
    assert read.besides(["logical"]) == read.folders
