"""`tmi-ops wal push` as a real server's archive_command, and what it must refuse."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tmi_ops.backup.base import back_up_base
from tmi_ops.errors import IntegrityError, OpsError
from tmi_ops.objectives.reading import read_recoverability
from tmi_ops.objectives.standing import Standing
from tmi_ops.objectives.stream import judge_stream
from tmi_ops.postgres.cluster import RunningCluster
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.wal_files import Segment, parse_segment_name
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.continuity.gaps import check_continuity
from tmi_ops.recovery.point_in_time.facts import read_facts
from tmi_ops.settings import OBJECTIVES, Settings, StoreSettings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.wal.ahead import Notes, ready_after
from tmi_ops.wal.archive import list_wal
from tmi_ops.wal.fetching import fetch_wal_file
from tmi_ops.wal.push import push_wal_file
from tmi_ops.wal.stored_file import WalConflictError
from tmi_ops_tests.commands import command
from tmi_ops_tests.physical import make_noise_table, physical_cluster, set_parameter, settings_for
from tmi_ops_tests.raw_s3 import read_raw, stored_keys
from tmi_ops_tests.variables import variables_of
from tmi_ops_tests.wal.receiving.receivers import assert_equal_to_pg_wal, flushed, reaches, receiving

SECRETS = ("POSTGRES_PASSWORD", "TMI_OPS_S3_SECRET_ACCESS_KEY")
# Before 15 an archiver that had no command looks for one only once a minute.
ARCHIVED_IN_S = 90.0


@dataclass(frozen=True)
class Archiving:
    """A server that can be told to archive, and the directory with the settings of its archive_command."""

    cluster: RunningCluster
    settings: Settings
    store: ObjectStore
    directory: Path

    @property
    def wal(self) -> Path:
        return self.cluster.directory / "pg_wal"

    def command(self) -> str:
        python = f"{sys.executable} -m tmi_ops.cli.main"
        return f"'env TMI_ENV=development {python} wal push --settings {self.directory} %p'"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> Iterator[RunningCluster]:
    root = tmp_path_factory.mktemp("archiving")
    with physical_cluster(programs, root, {"archive_mode": "on", "archive_timeout": "0"}) as cluster:
        make_noise_table(cluster.address, "noise", rows=1000)
        yield cluster


@pytest.fixture
def archiving(server: RunningCluster, store_settings: StoreSettings, tmp_path: Path) -> Iterator[Archiving]:
    settings = settings_for(server.address, store_settings, tmp_path / "home")
    owner = server.directory.stat()
    directory = server.directory.parent / f"settings-{tmp_path.name}"
    directory.mkdir(mode=0o700)
    file = directory / ".env.development"
    file.touch(mode=0o600)
    variables = variables_of(settings)
    file.write_text("".join(f"{name}='{value}'\n" for name, value in variables.items() if name.isupper()))
    for path in (directory, file):
        os.chown(path, owner.st_uid, owner.st_gid)
    yield Archiving(server, settings, open_store(settings.store, settings.environment), directory)
    set_parameter(server.address, "archive_command", "''")


@contextmanager
def asked(store: ObjectStore) -> Iterator[list[str]]:
    """What the store is asked for the length of a block."""
    requests: list[str] = []
    end = store.backend.watch(requests.append)
    try:
        yield requests
    finally:
        end()


def _value(archiving: Archiving, query: str) -> str:
    with connect(archiving.cluster.address) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return str(row[0])


def _end_segments(archiving: Archiving, count: int) -> str:
    """Fill and end so many segments; returns the name of the last."""
    with connect(archiving.cluster.address) as connection:
        for _ in range(count):
            connection.execute("UPDATE noise SET i = -i WHERE i % 50 = 0")
            row = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()
    assert row is not None
    return str(row[0])


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + ARCHIVED_IN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _archived(archiving: Archiving, name: str) -> bool:
    return _value(archiving, "SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver") >= name


@pytest.mark.slow
def test_a_server_that_archives_with_it_is_recoverable_from_every_base_to_its_last_segment(
    archiving: Archiving,
) -> None:
    base = back_up_base(archiving.settings, archiving.store, SilentReport())
    last = _end_segments(archiving, 5)
    set_parameter(archiving.cluster.address, "archive_command", archiving.command())
    _await(lambda: _archived(archiving, last))
    facts = read_facts(archiving.store, base.system_identifier)
    continuity = check_continuity(facts, {})
    assert continuity.whole, continuity.holes
    assert continuity.bases[0].reaches == int(last[8:16], 16) * (1 << 32) + (int(last[16:], 16) + 1) * (16 << 20)
    assert _value(archiving, "SELECT failed_count FROM pg_stat_archiver") == "0"
    reading = judge_stream(read_recoverability(archiving.settings, archiving.store), OBJECTIVES["production"])
    assert (reading.standing, reading.cures) == (Standing.MET, ()), reading.reason
    assert "archive_command works" in reading.reason


@pytest.mark.slow
def test_a_receiver_and_an_archive_command_at_once_fill_one_archive(archiving: Archiving, tmp_path: Path) -> None:
    set_parameter(archiving.cluster.address, "archive_command", archiving.command())
    with receiving(archiving.settings, slot="beside_push") as receiver:
        last = _end_segments(archiving, 6)
        here = flushed(archiving.cluster.address)
        _await(lambda: _archived(archiving, last) and reaches(archiving.store, here))
    assert receiver.error is None
    assert _value(archiving, "SELECT failed_count FROM pg_stat_archiver") == "0"
    assert_equal_to_pg_wal(archiving.store, archiving.cluster, tmp_path)


@pytest.mark.slow
def test_while_the_store_cannot_be_reached_the_server_keeps_its_wal_and_hands_it_over_later(
    archiving: Archiving,
) -> None:
    file = archiving.directory / ".env.development"
    right = file.read_text()
    endpoint = archiving.settings.store.endpoint_url or ""
    file.write_text(right.replace(endpoint, "http://127.0.0.1:9"))
    set_parameter(archiving.cluster.address, "archive_command", archiving.command())
    last = _end_segments(archiving, 1)
    _await(lambda: (archiving.wal / "archive_status" / f"{last}.ready").exists())
    assert not list_wal(archiving.store, _system_identifier(archiving)).segments
    file.write_text(right)
    set_parameter(archiving.cluster.address, "archive_command", archiving.command())
    _await(lambda: _archived(archiving, last))
    assert [item.name for item in list_wal(archiving.store, _system_identifier(archiving)).segments[1]][-1] == last


def test_what_was_stored_is_the_file_to_the_byte_and_may_be_handed_over_again(
    archiving: Archiving, tmp_path: Path
) -> None:
    name = _end_segments(archiving, 1)
    first = push_wal_file(archiving.store, archiving.wal / name)
    second = push_wal_file(archiving.store, archiving.wal / name)
    assert (first.new, second.new) == (True, False)
    following = _end_segments(archiving, 1)
    with asked(archiving.store) as requests:
        push_wal_file(archiving.store, archiving.wal / following)
    assert requests == ["HeadObject", "HeadObject", "ListObjectsV2", "PutObject"]
    assert fetch_wal_file(archiving.store, first.system_identifier, name, tmp_path / name)
    assert (tmp_path / name).read_bytes() == (archiving.wal / name).read_bytes()


def test_other_wal_under_the_same_name_is_refused_and_what_is_there_stays(archiving: Archiving, tmp_path: Path) -> None:
    name = _end_segments(archiving, 1)
    push_wal_file(archiving.store, archiving.wal / name)
    (key,) = [key for key in stored_keys(archiving.settings.store) if key.endswith(f"{name}.zst")]
    before = read_raw(archiving.settings.store, key)
    other = tmp_path / name
    content = bytearray((archiving.wal / name).read_bytes())
    content[-1] ^= 0xFF
    other.write_bytes(content)
    with pytest.raises(WalConflictError, match=name):
        push_wal_file(archiving.store, other)
    assert read_raw(archiving.settings.store, key) == before


@pytest.mark.parametrize("damage", ["cut", "renamed", "not wal"])
def test_a_file_that_is_not_the_wal_of_its_name_is_refused(archiving: Archiving, tmp_path: Path, damage: str) -> None:
    name = _end_segments(archiving, 1)
    content = (archiving.wal / name).read_bytes()
    wrong = tmp_path / ("0000000100000000000000FE" if damage == "renamed" else name)
    wrong.write_bytes({"cut": content[:-8192], "renamed": content, "not wal": b"\0" * len(content)}[damage])
    with pytest.raises(IntegrityError):
        push_wal_file(archiving.store, wrong)
    assert not stored_keys(archiving.settings.store)


def test_what_is_no_wal_file_is_refused_by_its_name(archiving: Archiving, tmp_path: Path) -> None:
    (tmp_path / "postgresql.conf").write_text("")
    with pytest.raises(OpsError, match="not the name of a WAL file"):
        push_wal_file(archiving.store, tmp_path / "postgresql.conf")


def test_a_history_is_stored_under_the_cluster_in_whose_directory_it_lies(archiving: Archiving, tmp_path: Path) -> None:
    history = tmp_path / "00000002.history"
    history.write_text("1\t0/3000000\tno recovery target specified\n")
    with pytest.raises(OpsError, match="does not name its cluster"):
        push_wal_file(archiving.store, history)
    beside = archiving.wal / history.name
    beside.write_bytes(history.read_bytes())
    try:
        pushed = push_wal_file(archiving.store, beside)
    finally:
        beside.unlink()
    assert pushed.system_identifier == _system_identifier(archiving)
    assert list_wal(archiving.store, pushed.system_identifier).histories == (2,)


def test_a_partial_reaches_as_far_as_the_history_says_and_never_replaces_one_that_reaches_further(
    archiving: Archiving, tmp_path: Path
) -> None:
    name = _end_segments(archiving, 1)
    segment = _segment(name)
    content = (archiving.wal / name).read_bytes()
    partial = tmp_path / f"{name}.partial"
    partial.write_bytes(content)
    for part, new in ((0x8000, True), (0x4000, False)):
        history = tmp_path / "00000002.history"
        history.write_text(f"1\t{segment.start >> 32:X}/{(segment.start + part) & 0xFFFFFFFF:X}\tgone\n")
        pushed = push_wal_file(archiving.store, partial)
        assert pushed.new is new
        (found,) = list_wal(archiving.store, pushed.system_identifier).partials[1]
        assert found.end_lsn == segment.start + 0x8000


@pytest.mark.slow
def test_files_that_are_ready_are_stored_ahead_and_then_answered_without_the_store(
    archiving: Archiving, tmp_path: Path
) -> None:
    names = [_end_segments(archiving, 1) for _ in range(3)]
    assert [path.name for path in ready_after(archiving.wal / names[0])] == names[1:]
    variables = {**variables_of(archiving.settings), "TMPDIR": str(tmp_path)}
    assert _push(archiving, variables, names[0]).returncode == 0
    done = _push(archiving, variables, names[1])
    assert (done.returncode, done.stderr) == (0, ""), "the store was asked again"
    other = {**variables, "TMI_OPS_S3_PREFIX": "elsewhere"}
    assert "archived" in _push(archiving, other, names[2]).stderr, "a note about one store answered for another"


def test_a_note_is_of_no_worth_once_the_file_is_another(tmp_path: Path) -> None:
    notes = Notes(tmp_path / "notes")
    notes.directory.mkdir()
    file = tmp_path / "000000010000000000000001"
    file.write_bytes(b"one")
    notes.leave(file)
    file.write_bytes(b"other")
    os.utime(file, ns=(1, 1))
    assert not notes.take(file)
    notes.leave(file)
    assert notes.take(file)
    assert not notes.take(file), "a note is used up"


def _push(archiving: Archiving, variables: dict[str, str], name: str) -> subprocess.CompletedProcess[str]:
    return command("wal", "push", f"pg_wal/{name}", env=variables, cwd=archiving.cluster.directory)


def _segment(name: str) -> Segment:
    return parse_segment_name(name)


def _system_identifier(archiving: Archiving) -> str:
    return _value(archiving, "SELECT system_identifier FROM pg_control_system()")
