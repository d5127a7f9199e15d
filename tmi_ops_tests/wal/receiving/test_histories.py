"""Histories that are not what their names say: each is noticed before it is archived, and never called recoverable."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tmi_ops.backup.base import back_up_base
from tmi_ops.errors import OpsError
from tmi_ops.postgres.cluster import RunningCluster, start_cluster
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.unprivileged import server_identity
from tmi_ops.postgres.wal_files import parse_lsn, segment_at
from tmi_ops.postgres.wal_records import read_records as records_of
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.continuity.gaps import check_continuity
from tmi_ops.recovery.continuity.reading import read_contents, read_links
from tmi_ops.recovery.point_in_time.facts import read_facts
from tmi_ops.recovery.point_in_time.planning import plan_recovery
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.settings import Settings, StoreSettings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.store.small_objects import sealed
from tmi_ops.wal.fetching import fetch_wal_file
from tmi_ops.wal.layout import file_key
from tmi_ops.wal.links import links_from
from tmi_ops.wal.push import push_wal_file
from tmi_ops.wal.receiver import ReceivedWal, StreamOptions, catch_up_wal
from tmi_ops.wal.records import read_records
from tmi_ops.wal.slot import read_server, slot_name
from tmi_ops.wal.stored_file import FileFacts, WalConflictError, compressed
from tmi_ops_tests.physical import PHYSICAL_PARAMETERS, Notes, physical_cluster, settings_for
from tmi_ops_tests.recovery.point_in_time.restoring import plan_to, restore, started
from tmi_ops_tests.wal.receiving.receivers import archive_of, write_wal

pytestmark = pytest.mark.slow


class Lived:
    """A cluster, its store, and a base backup of it."""

    def __init__(self, programs: Programs, cluster: RunningCluster, settings: Settings) -> None:
        self.programs = programs
        self.cluster = cluster
        self.settings = settings
        self.store: ObjectStore = open_store(settings.store, settings.environment)

    def sql(self, *statements: str) -> object:
        found: object = None
        with connect(self.cluster.address) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
                found = cursor.fetchone()[0] if cursor.description else None  # type: ignore[index]
        return found

    def catch_up(self, notes: Notes | None = None, *, accept_gap: bool = False) -> ReceivedWal:
        received = catch_up_wal(self.settings, self.store, notes or Notes(), StreamOptions(accept_gap=accept_gap))
        assert received is not None
        return received

    def stop(self) -> None:
        self.cluster.stop()

    def start(self, **parameters: str) -> None:
        data = self.cluster.directory
        self.cluster = start_cluster(
            self.programs,
            data,
            server_identity(self.programs.path("postgres"), data.parent),
            self.cluster.address,
            parameters={**PHYSICAL_PARAMETERS, **parameters},
            log=data.parent / "again.log",
        )

    def program(self, name: str, *words: str) -> None:
        identity = server_identity(self.programs.path("postgres"), self.cluster.directory.parent)
        argv = identity.command([self.programs.path(name), *words])
        subprocess.run(argv, check=True, capture_output=True, **identity.process_options())


@pytest.fixture
def lived(programs: Programs, store_settings: StoreSettings, tmp_path: Path) -> Iterator[Lived]:
    with physical_cluster(programs, tmp_path / "server", {"max_wal_size": "32MB"}) as cluster:
        made = Lived(programs, cluster, settings_for(cluster.address, store_settings, tmp_path))
        made.sql("CREATE TABLE x (i int)")
        back_up_base(made.settings, made.store, SilentReport())
        yield made
        made.cluster.stop()


def _copy_of(data: Path, to: Path) -> None:
    subprocess.run(["/bin/cp", "-a", str(data), str(to)], check=True)


def test_files_put_back_to_an_older_state_are_refused_while_behind_and_once_past_the_archive(
    lived: Lived, tmp_path: Path
) -> None:
    lived.catch_up()
    lived.stop()
    data = lived.cluster.directory
    _copy_of(data, tmp_path / "snapshot")
    lived.start()
    for number in range(2):
        lived.sql(f"INSERT INTO x SELECT {number} FROM generate_series(1, 1000)", "SELECT pg_switch_wal()")
    archived = parse_lsn(lived.catch_up().lsn)
    lived.stop()
    shutil.rmtree(data)
    (tmp_path / "snapshot").rename(data)
    lived.start()
    lived.sql("INSERT INTO x VALUES (100)")

    with pytest.raises(WalConflictError, match="returned to an earlier state") as behind:
        lived.catch_up()
    assert "pg_promote" in behind.value.hint
    assert not behind.value.transient
    for number in range(4):
        lived.sql(f"INSERT INTO x SELECT {number} FROM generate_series(1, 2000)", "SELECT pg_switch_wal()")
    assert parse_lsn(str(lived.sql("SELECT pg_current_wal_lsn()::text"))) > archived
    with pytest.raises(WalConflictError):
        lived.catch_up()
    with pytest.raises(WalConflictError):
        lived.catch_up(accept_gap=True)
    assert archive_of(lived.store).newest_lsn(1) == archived


def test_wal_level_minimal_in_between_is_a_break_until_the_next_base_backup(lived: Lived, tmp_path: Path) -> None:
    lived.sql("INSERT INTO x VALUES (1)")
    lived.catch_up()
    lived.sql(f"SELECT pg_drop_replication_slot('{slot_name(lived.settings)}')")
    lived.stop()
    between = datetime.now(UTC)
    lived.start(wal_level="minimal", max_wal_senders="0", summarize_wal="off")
    lived.sql("INSERT INTO x VALUES (2)")
    lived.stop()
    lived.start()
    notes = Notes()
    lived.catch_up(notes)
    assert any("wal_level = minimal" in note for note in notes.noted)

    facts = read_facts(lived.store)
    assert not check_continuity(facts, {}).whole
    with pytest.raises(OpsError, match="wal_level = minimal") as refused:
        plan_recovery(facts, Target())
    assert "--exclusive" in refused.value.hint
    with pytest.raises(OpsError, match="wal_level = minimal"):
        plan_to(lived.store, Target(time=datetime.now(UTC)), tmp_path / "scratch")
    restored = restore(lived.settings, Target(time=between), tmp_path / "restored")
    assert restored.stopped
    with started(tmp_path / "restored", lived.cluster.address) as copy, connect(copy.address) as connection:
        assert connection.execute("SELECT i FROM x").fetchall() == [(1,)]
    back_up_base(lived.settings, lived.store, SilentReport())
    lived.sql("INSERT INTO x VALUES (3)")
    lived.catch_up()
    plan = plan_recovery(read_facts(lived.store), Target())
    assert not plan.wal.goes_on


def test_after_pg_resetwal_receiving_goes_on_behind_a_new_base_backup(lived: Lived) -> None:
    lived.catch_up()
    lived.stop()
    lived.program("pg_resetwal", "-f", str(lived.cluster.directory))
    lived.start()
    with pytest.raises(OpsError, match=r"has removed WAL|does not continue"):
        lived.catch_up()
    back_up_base(lived.settings, lived.store, SilentReport())
    lived.sql("INSERT INTO x VALUES (1)")
    reached = parse_lsn(lived.catch_up().lsn)
    assert plan_recovery(read_facts(lived.store), Target()).wal.end == reached


def test_the_first_receiver_after_the_wal_was_recycled_goes_on_and_never_moves_the_slot_back(lived: Lived) -> None:
    write_wal(lived.cluster.address, 96)
    lived.sql("CHECKPOINT", "CHECKPOINT")
    notes = Notes()
    lived.catch_up(notes)
    assert any("Take a new one" in note for note in notes.noted)
    kept = read_server(lived.cluster.address, slot_name(lived.settings)).slot
    assert kept is not None
    write_wal(lived.cluster.address, 8)
    lived.catch_up()
    later = read_server(lived.cluster.address, slot_name(lived.settings)).slot
    assert later is not None
    assert (later.restart_lsn or 0) > (kept.restart_lsn or 0)
    back_up_base(lived.settings, lived.store, SilentReport())
    lived.catch_up()
    assert not plan_recovery(read_facts(lived.store), Target()).wal.goes_on


def test_two_stores_have_slots_of_their_own(lived: Lived, store_settings: StoreSettings) -> None:
    lived.catch_up()
    elsewhere = lived.settings.model_copy(
        update={"store": store_settings.model_copy(update={"prefix": f"{store_settings.prefix}-too"})}
    )
    lived.sql("INSERT INTO x VALUES (1)")
    catch_up_wal(elsewhere, open_store(elsewhere.store, elsewhere.environment), Notes(), StreamOptions())
    assert slot_name(elsewhere) != slot_name(lived.settings)
    first = read_server(lived.cluster.address, slot_name(lived.settings)).slot
    assert first is not None
    assert first.restart_lsn == archive_of(lived.store).newest_lsn(1)


def test_the_slot_that_all_shared_once_goes_on_under_the_archives_own_name(lived: Lived) -> None:
    catch_up_wal(lived.settings, lived.store, Notes(), StreamOptions(slot="tmi_ops"))
    before = read_server(lived.cluster.address, "tmi_ops").slot
    notes = Notes()
    lived.catch_up(notes)
    assert any("The slot tmi_ops is replaced by" in note for note in notes.noted)
    assert read_server(lived.cluster.address, "tmi_ops").slot is None
    after = read_server(lived.cluster.address, slot_name(lived.settings)).slot
    assert before is not None
    assert after is not None
    assert (after.restart_lsn or 0) >= (before.restart_lsn or 0)


def test_pushing_a_whole_segment_over_an_open_one_needs_the_same_beginning(lived: Lived, tmp_path: Path) -> None:
    lived.catch_up()  # so that the slot keeps what is switched away from
    lived.sql("SELECT pg_switch_wal()", "INSERT INTO x VALUES (0)")
    lived.catch_up()
    (held,) = archive_of(lived.store).partials[1]
    lived.sql("INSERT INTO x VALUES (1)", "SELECT pg_switch_wal()", "INSERT INTO x VALUES (2)")
    ours = lived.cluster.directory / "pg_wal" / held.segment.name
    tampered = bytearray(ours.read_bytes())
    tampered[held.end_lsn - held.segment.start - 16] ^= 0xFF
    other = tmp_path / "other" / ours.name
    other.parent.mkdir()
    other.write_bytes(bytes(tampered))
    with pytest.raises(WalConflictError, match="partial"):
        push_wal_file(lived.store, other)
    assert archive_of(lived.store).partials[1] == (held,)
    assert push_wal_file(lived.store, ours).new
    with pytest.raises(WalConflictError):
        push_wal_file(lived.store, other)


def test_a_spliced_archive_is_found_by_its_links_and_by_its_content(lived: Lived, tmp_path: Path) -> None:
    """As an older release left it: the names follow each other, the records do not."""
    lived.catch_up()
    for number in range(3):
        lived.sql(f"INSERT INTO x SELECT {number} FROM generate_series(1, 500)", "SELECT pg_switch_wal()")
    lived.catch_up()
    archive = archive_of(lived.store)
    assert check_continuity(read_facts(lived.store), {}, read_links(lived.store, archive, SilentReport()).links).whole
    last = archive.segments[1][-1].segment
    _forge_successor(lived, last.start, tmp_path)
    facts = read_facts(lived.store)
    for read in (read_links, read_contents):
        found = check_continuity(facts, {}, read(lived.store, facts.archive, SilentReport()).links)
        assert [item.lsn for item in found.breaks] == [last.start]
        assert not found.whole


def _forge_successor(lived: Lived, start: int, tmp_path: Path) -> None:
    """Put the last segment again, with another record named as the one before its first."""
    segment = segment_at(1, start)
    archive = archive_of(lived.store)
    assert fetch_wal_file(lived.store, archive.system_identifier, segment.name, tmp_path / segment.name)
    content = bytearray((tmp_path / segment.name).read_bytes())
    content[48:56] = (start - 4096).to_bytes(8, "little")
    plain = bytes(content)
    facts = FileFacts(len(plain), hashlib.sha256(plain).hexdigest(), segment.end)
    links = links_from(records_of(plain), levels_read=True)
    lived.store.put(
        file_key(archive.system_identifier, segment.name),
        sealed(lived.store, compressed(plain)),
        {**links.metadata(), **facts.metadata()},
    )


def test_what_is_followed_is_recorded_with_the_server(lived: Lived) -> None:
    lived.catch_up()
    lived.catch_up()
    recorded = read_records(lived.store, archive_of(lived.store).system_identifier)
    assert [item.timeline for item in recorded.followed] == [1]
    assert recorded.followed[0].server.endswith(f":{lived.cluster.address.port}")
