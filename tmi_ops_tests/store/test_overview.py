"""The catalogue hides no backup and brings none back, whoever dies between what."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cost.history import write_backups
from tmi_ops.errors import StoreError
from tmi_ops.retention.holds import hold_backup, hold_key, list_holds, read_hold
from tmi_ops.retention.reading import read_facts
from tmi_ops.store.backup_documents import read_manifest, record_verification
from tmi_ops.store.catalogue import list_backups
from tmi_ops.store.changes import ABANDONED, CHANGES, Change, announce, changes_in
from tmi_ops.store.folders import Folder, older_than
from tmi_ops.store.manifest import Manifest, Verification
from tmi_ops.store.minisign import new_secret_key
from tmi_ops.store.objects import ListedObject, ObjectStore
from tmi_ops.store.overview import Thoroughness, changing, first_listed, keep, overview, rebuild, spot_of
from tmi_ops.store.seen import catalogue_went_back
from tmi_ops.store.signed import read_document
from tmi_ops.store.stored_catalogue import CATALOGUE, LARGEST_DOCUMENT, StoredCatalogue, decoded, encoded
from tmi_ops.store.trust import Trust, TrustedKey
from tmi_ops.store.vouching import sign_documents, unsigned_documents
from tmi_ops_tests.raw_s3 import s3_of
from tmi_ops_tests.store.conftest import RawBucket

BACKUPS = 3
NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


@pytest.fixture
def past(store: ObjectStore) -> ObjectStore:
    """A store whose catalogue knows three proven backups of each kind."""
    write_backups(store, BACKUPS, segments=10)
    rebuild(store)
    return store


def requests_of(store: ObjectStore, look: Any) -> Counter[str]:
    counted: Counter[str] = Counter()
    events: Any = s3_of(store).client.meta.events

    def count(event_name: str, **_: object) -> None:
        counted.update([event_name.rpartition(".")[2]])

    events.register("before-send.s3", count)
    look()
    events.unregister("before-send.s3", count)
    return counted


def ids(store: ObjectStore) -> list[str]:
    return [entry.manifest.backup_id for entry in list_backups(store)]


def failing(backup_id: str, manifest_sha256: str = "0" * 64) -> Verification:
    return Verification(
        backup_id=backup_id,
        outcome="failed",
        reasons=("a row differs",),
        verified_at=datetime.now(UTC),
        server_version="17.1",
        tmi_ops_version="0",
        manifest_sha256=manifest_sha256,
    )


def test_what_the_catalogue_knows_is_not_read_again(past: ObjectStore) -> None:
    assert set(requests_of(past, lambda: ids(past))) <= {"ListObjectsV2", "GetObject"}
    assert requests_of(past, lambda: ids(past)) == {"ListObjectsV2": 3}


def test_a_backup_removed_by_hand_is_gone_and_one_put_there_by_hand_is_there(past: ObjectStore, raw: RawBucket) -> None:
    oldest = ids(past)[-1]
    kind = oldest.split("-")[1]
    kept = {item.key: raw.read(item.key) for item in past.list_objects(f"{kind}/{oldest}/")}
    past.delete(kept)
    assert oldest not in ids(past)
    for key, data in kept.items():
        raw.write(key, data)
    assert oldest in ids(past)


def test_an_altered_manifest_is_noticed_though_the_catalogue_has_the_true_one(
    past: ObjectStore, raw: RawBucket
) -> None:
    newest = ids(past)[0]
    raw.write(f"{newest.split('-')[1]}/{newest}/manifest.json", b"{}")
    told: list[str] = []
    assert newest not in [
        one.manifest.backup_id for one in list_backups(past, lambda error: told.append(error.message))
    ]
    assert newest in " ".join(told)


@pytest.mark.parametrize("recent", [0, 4])
def test_a_verdict_whose_writer_died_before_it_told_the_catalogue_counts(
    past: ObjectStore, monkeypatch: pytest.MonkeyPatch, recent: int
) -> None:
    """Also on a backup so old that it is not listed object by object: `recent` objects are."""
    monkeypatch.setattr("tmi_ops.store.overview._LISTED", recent or 400)
    monkeypatch.setattr("tmi_ops.store.overview.keep", lambda *_: None)  # the writer is dead by then
    oldest = ids(past)[-1]
    record_verification(past, failing(oldest))
    (verification,) = [one.verification for one in list_backups(past) if one.manifest.backup_id == oldest]
    assert verification is not None
    assert verification.outcome == "failed"


def test_a_verdict_is_in_the_catalogue_once_it_is_recorded(past: ObjectStore) -> None:
    oldest = ids(past)[-1]
    record_verification(past, failing(oldest))
    view = overview(past, thoroughness="recent")
    assert (view.changes, view.fetched) == ((), 0)
    assert list(past.list_objects(f"{CHANGES}/")) == []


def test_a_reader_does_not_say_that_it_has_a_change_which_it_may_have_missed(past: ObjectStore) -> None:
    announced = announce(past, [ids(past)[0]])
    keep(past, overview(past))
    assert [change.name for change in overview(past).changes] == [change.name for change in announced]


@pytest.mark.parametrize("body", [b"", b"{}", b"\x28\xb5\x2f\xfd garbage"])
def test_a_catalogue_that_cannot_be_read_is_not_needed(past: ObjectStore, body: bytes) -> None:
    before = ids(past)
    past.put_bytes(CATALOGUE, body)
    assert ids(past) == before
    assert len(rebuild(past).committed) == len(before)
    assert overview(past).fetched == 0


def test_older_folders_are_known_by_their_names(past: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tmi_ops.store.overview._LISTED", 4)
    ids(past)
    assert requests_of(past, lambda: ids(past)) == {"ListObjectsV2": 6}, "one for some older folders"


@pytest.mark.parametrize("listed", [1, 10, 15, 20])
@pytest.mark.parametrize("thoroughness", ["recent", "names"])
def test_wherever_the_listing_object_by_object_begins_no_backup_is_hidden(
    past: ObjectStore, monkeypatch: pytest.MonkeyPatch, listed: int, thoroughness: Thoroughness
) -> None:
    """Some servers take the place to list from for a folder, and leave out all that is in it."""
    before = ids(past)
    monkeypatch.setattr("tmi_ops.store.overview._LISTED", listed)
    assert {one.backup_id for one in overview(past, thoroughness=thoroughness).committed} == set(before)


A, B, C, D = (f"2026112{day}T020000Z-base-0000" for day in range(4))


@pytest.mark.parametrize(
    ("names", "doubted", "believed", "read"),
    [
        ([A, B, C, D], [], {A, B}, set()),
        ([A, C, D], [], {A}, set()),  # one is gone: nobody brings it back
        ([A, "20261120T030000Z-base-0000", B], [], {A, B}, {"20261120T030000Z-base-0000"}),  # and nothing is hidden
        ([A, B], [A, D], {B}, {A}),
        ([B], [A], {B}, set()),
        (None, [A], {B}, {A}),
        (["..", "latest"], [], set(), set()),
    ],
)
def test_older_folders_are_believed_where_their_names_are_there_and_nobody_announced_a_change(
    names: list[str] | None, doubted: list[str], believed: set[str], read: set[str]
) -> None:
    assert older_than(C, [A, B, C, D], names, doubted) == (believed, read)


def test_a_verdict_is_told_though_somebody_took_its_announcement_for_an_abandoned_one(
    past: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a machine may whose writer was stopped for two days between the announcement and the deed."""
    monkeypatch.setattr("tmi_ops.store.overview._LISTED", 4)
    oldest = ids(past)[-1]
    with changing(past, oldest):
        with monkeypatch.context() as later:
            later.setattr("tmi_ops.store.overview.ABANDONED", timedelta(seconds=-1))
            keep(past, overview(past))
        assert list(past.list_objects(f"{CHANGES}/")) == []
        key = f"{oldest.split('-')[1]}/{oldest}/verdict-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}-0a1b.json"
        past.put_bytes(key, b"{}")
    assert overview(past, thoroughness="recent").folders[oldest].verification == key


def test_a_clock_that_is_ahead_makes_no_announcement_an_abandoned_one(
    past: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(days=3)

    announced = announce(past, [ids(past)[0]])
    view = overview(past)
    monkeypatch.setattr("tmi_ops.store.overview.datetime", Ahead)
    keep(past, view)
    assert [change.name for change in overview(past).changes] == [change.name for change in announced]


def test_a_catalogue_that_was_put_back_hides_no_proof_that_failed_since(
    past: ObjectStore, raw: RawBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever writes the bucket without a key: it is signed as it ever was."""
    monkeypatch.setattr("tmi_ops.store.overview._LISTED", 4)
    key = new_secret_key()
    trust = Trust("production", key, (TrustedKey(key.public),))  # whose history it is
    host = replace(past, trust=trust, seen_file=tmp_path / "seen.json")
    sign_documents(host, unsigned_documents(host))
    rebuild(host)
    oldest = ids(host)[-1]
    newest = raw.client.get_object(Bucket=raw.bucket, Key=raw.root + CATALOGUE)
    old = (newest["Body"].read(), newest["Metadata"])
    manifest = list_backups(host)[-1].manifest
    record_verification(host, failing(oldest, manifest.stored_sha256))
    raw.client.put_object(Bucket=raw.bucket, Key=raw.root + CATALOGUE, Body=old[0], Metadata=old[1])
    (verification,) = [one.verification for one in list_backups(host) if one.manifest.backup_id == oldest]
    assert verification is not None
    assert verification.outcome == "failed"


def test_a_catalogue_from_the_future_is_not_believed_nor_makes_later_ones_unbelievable(
    store: ObjectStore, tmp_path: Path
) -> None:
    trust = Trust(signing=new_secret_key(), trusted=(TrustedKey(new_secret_key().public),))
    host, now = replace(store, trust=trust, seen_file=tmp_path / "seen.json"), datetime.now(UTC)
    assert catalogue_went_back(host, now + timedelta(days=2))
    assert not catalogue_went_back(host, now)
    assert catalogue_went_back(host, now - timedelta(seconds=1))


@pytest.mark.parametrize("recent", [400, 4])
def test_a_backup_whose_objects_were_removed_is_none_and_is_named(
    past: ObjectStore, monkeypatch: pytest.MonkeyPatch, recent: int
) -> None:
    """By hand, or by a lifecycle rule that does not know what belongs together."""
    newest = ids(past)[0]
    kind = newest.split("-")[1]
    manifest = read_manifest(past, newest)
    past.delete([f"{kind}/{newest}/{manifest.objects[0].name}"])
    told: list[str] = []
    left = list_backups(past, lambda error: told.append(error.message))
    assert newest not in [one.manifest.backup_id for one in left]
    assert len(left) == 2 * BACKUPS - 1
    assert told == [f"{newest} is incomplete: the store has {len(manifest.objects) - 1} of its {len(manifest.objects)} "
                    "objects."]  # fmt: skip
    (backup,) = [one for one in read_facts(past).backups if one.backup_id == newest]
    assert backup.verification == "failed", "so retention removes no older one because of it"
    monkeypatch.setattr("tmi_ops.store.overview._LISTED", recent)
    assert newest not in [one.manifest.backup_id for one in list_backups(past, lambda _: None)]


def test_evidence_of_a_drill_that_is_too_large_for_the_catalogue_is_not_absent(past: ObjectStore) -> None:
    large = b"{}" + b" " * LARGEST_DOCUMENT
    past.put_bytes("drills/20261127T020000Z-drill-0a1b.json", large)
    for _ in range(2):  # as it is seen, and as the catalogue has it then
        rebuild(past)
        view = overview(past)
        assert read_document(view.over(past), view.drills[0], "proof") == large


def test_manifests_that_are_too_large_for_the_catalogue_are_told_apart(
    past: ObjectStore, raw: RawBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of old backups without a verdict nothing lies in it then."""
    monkeypatch.setattr("tmi_ops.store.overview._LISTED", 4)
    monkeypatch.setattr("tmi_ops.store.overview.LARGEST_DOCUMENT", 2000)
    logical = [one for one in ids(past) if "-logical-" in one]
    past.delete([item.key for one in logical for item in past.list_objects(f"logical/{one}/verdict-")])
    rebuild(past)
    assert [one for one in ids(past) if "-logical-" in one] == logical
    key = f"logical/{logical[-1]}/manifest.json"
    raw.write(key, raw.read(key).replace(b'"tmi"', b'"other"'))
    (oldest,) = [one.manifest for one in list_backups(past) if one.manifest.backup_id == logical[-1]]
    assert isinstance(oldest, Manifest)
    assert oldest.database == "other"


def test_a_manifest_of_the_other_kind_is_none_of_the_backup(past: ObjectStore, raw: RawBucket) -> None:
    """It would count as a dump in what retention keeps, and as files of a cluster by its name."""
    base, dump = (next(one for one in ids(past) if f"-{kind}-" in one) for kind in ("base", "logical"))
    for item in list(past.list_objects(f"logical/{dump}/")):
        raw.write(
            item.key.replace(f"logical/{dump}", f"base/{base}"),
            raw.read(item.key).replace(dump.encode(), base.encode()),
        )
    told: list[str] = []
    assert base not in [one.manifest.backup_id for one in list_backups(past, lambda error: told.append(error.message))]
    assert f"belongs to another backup, {base} (logical)" in " ".join(told)
    with pytest.raises(StoreError, match="belongs to another backup"):
        read_facts(past)


def test_a_hold_that_was_removed_by_hand_is_none_whatever_the_catalogue_says(past: ObjectStore) -> None:
    newest = ids(past)[0]
    hold_backup(past, newest, "an audit")
    assert [one.backup_id for one in list_holds(past)] == [newest]
    past.delete([hold_key(newest)])
    assert list_holds(past) == []
    assert read_hold(overview(past).over(past), newest) is None


def test_an_old_backup_that_was_removed_by_hand_leaves_the_guards_word_too(
    past: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the server goes on listing the name of its folder."""
    oldest = ids(past)[-1]
    monkeypatch.setattr("tmi_ops.store.overview._LISTED", 4)
    monkeypatch.setattr("tmi_ops.store.overview._SPOT_S", 0.001)
    past.delete([item.key for item in past.list_objects(f"{oldest.split('-')[1]}/{oldest}/")])
    looks = (overview(past, thoroughness="recent") for _ in range(300))
    assert next((True for view in looks if oldest not in view.folders), False)
    assert all(oldest not in overview(past, thoroughness="recent").folders for _ in range(5))


def test_every_older_folder_has_its_turn_and_a_spot_is_one_request() -> None:
    folders = [Folder(f"b{number:03}", objects=objects) for number, objects in enumerate([100, 350, 40, 10, 500, 3, 3])]
    spots = [spot_of(folders, turn) for turn in range(8)]
    assert spots[:4] == [["b000"], ["b001", "b002", "b003"], ["b004"], ["b005", "b006"]]
    assert spots[4:] == spots[:4]
    assert spot_of([], 3) == []


def test_what_is_stored_is_what_is_read() -> None:
    folder = Folder("20261127T020000Z-base-0001", 10, 2, NOW, NOW, None, held=True)
    apart = frozenset({"drills/x.json"})
    stored = StoredCatalogue({folder.backup_id: folder}, {}, frozenset({"a"}), ("drills/x.json",), NOW, apart)
    assert decoded(encoded(stored)) == stored
    assert decoded(encoded(stored)[:-5]) is None


def test_a_catalogue_of_names_that_are_none_is_not_believed() -> None:
    folder = Folder("../../etc", 10, 2, NOW, NOW, None)
    assert decoded(encoded(StoredCatalogue({folder.backup_id: folder}))) is None
    verification = "base/20261127T020000Z-base-0002/verdict-x.json"
    other = Folder("20261127T020000Z-base-0001", 10, 2, NOW, NOW, verification)
    assert decoded(encoded(StoredCatalogue({other.backup_id: other}))) is None


def test_an_announcement_of_something_else_is_none() -> None:
    names = ["20261127T120000000000Z-0a1b-20261127T020000Z-base-0001", "20261127T120000000000Z-0a1b-drills", "../y"]
    found = changes_in([ListedObject(f"{CHANGES}/{name}", 0, NOW) for name in [*names, f"{names[0]}-etc"]])
    assert found == [Change(names[0], "20261127T020000Z-base-0001", NOW), Change(names[1], "drills", NOW)]
    assert timedelta(hours=1) < ABANDONED


@pytest.mark.parametrize(("objects", "first"), [([10] * 5, ""), ([150] * 5, 3), ([5000] * 3, 2), ([1, 398, 1], "")])
def test_the_newest_folders_that_fit_one_page_are_listed_whole(objects: list[int], first: int | str) -> None:
    found = [Folder(f"2026112{n}T020000Z-base-0000", objects=count) for n, count in enumerate(objects)]
    listed = first_listed(found)
    assert listed == (found[first].backup_id if isinstance(first, int) else "")
