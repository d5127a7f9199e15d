"""A real shadow beside a real server: it replays the archive, reports every fault, and continues after a repair."""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from tmi_ops.backup.base import back_up_base
from tmi_ops.postgres.cluster import RunningCluster
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.wal_files import Segment, format_lsn, parse_lsn, parse_segment_name
from tmi_ops.postgres.wal_records import read_records
from tmi_ops.progress import SilentReport
from tmi_ops.settings import Settings, StoreSettings
from tmi_ops.shadow.report import RollingCheck, ShadowReport
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.wal.layout import file_key
from tmi_ops.wal.partials import list_open
from tmi_ops.wal.stored_file import FileFacts, compressed, store_once
from tmi_ops_tests.archiving import archive_wal
from tmi_ops_tests.physical import physical_cluster, settings_for
from tmi_ops_tests.recovery.point_in_time.conftest import KEEPS_WAL, make_ledger, write
from tmi_ops_tests.recovery.point_in_time.restoring import started
from tmi_ops_tests.shadow.shadowing import Shadow, shadowing
from tmi_ops_tests.wal.receiving.receivers import flushed

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Beside:
    cluster: RunningCluster
    settings: Settings
    store: ObjectStore
    shadow: Shadow
    system_identifier: str


@pytest.fixture(scope="module")
def beside(
    tmp_path_factory: pytest.TempPathFactory, programs: Programs, s3: StoreSettings, shared_bucket: str
) -> Iterator[Beside]:
    root = tmp_path_factory.mktemp("shadowed")
    with physical_cluster(programs, root, KEEPS_WAL) as cluster:
        own = s3.model_copy(update={"bucket": shared_bucket, "prefix": f"shadow-{secrets.token_hex(6)}"})
        settings = settings_for(cluster.address, own, root / "home")
        store = open_store(settings.store, settings.environment)
        make_ledger(cluster.address)
        base = back_up_base(settings, store, SilentReport())
        write(cluster.address)
        archive_wal(cluster, store, close_segment=False)
        with shadowing(settings) as shadow:
            yield Beside(cluster, settings, store, shadow, base.system_identifier)


def test_it_replays_what_is_archived_as_it_comes(beside: Beside) -> None:
    beside.shadow.until_rows(3)
    for close in (False, True, False):
        moment = write(beside.cluster.address)
        archive_wal(beside.cluster, beside.store, close_segment=close)
        beside.shadow.until_rows(moment.rows)
    beside.shadow.until_level()


def test_every_page_that_it_replayed_is_read_and_found_sound(beside: Beside) -> None:
    def told(report: ShadowReport) -> RollingCheck | None:
        return next((one for one in report.checks if one.name == "page_checksums"), None)

    beside.shadow.until(lambda report: (one := told(report)) and one.covered == 1.0, "its pages were not read")
    found = told(beside.shadow.report)
    assert found is not None
    assert (found.outcome, found.findings) == ("passed", ())
    assert "all pages with correct checksums" in found.detail


def test_a_hole_a_damaged_object_and_a_splice_are_named_and_passed_once_they_are_mended(beside: Beside) -> None:
    missing, _ = unarchived(beside, 3)
    damaged, spliced = missing.next, missing.next.next
    content = content_of(beside, damaged)
    facts = FileFacts(len(content), hashlib.sha256(content).hexdigest(), damaged.end).metadata()
    spoilt = bytearray(content)
    spoilt[100_000] ^= 1
    beside.store.put(file_key(beside.system_identifier, damaged.name), compressed(spoilt), facts)
    other = bytearray(content_of(beside, spliced))
    first = read_records(other).first
    assert first is not None
    struct.pack_into("<Q", other, first - spliced.start + 8, first - 4096)  # xl_prev: of another history
    put(beside, spliced, bytes(other))

    trouble = beside.shadow.trouble("hole")
    assert (trouble.segment, trouble.lsn) == (missing.name, format_lsn(missing.start))
    assert beside.shadow.report.state == "stopped"
    put(beside, missing)

    trouble = beside.shadow.trouble("damaged object")
    assert (trouble.segment, trouble.lsn) == (damaged.name, format_lsn(damaged.start))
    assert "SHA-256" in trouble.what
    beside.store.delete([file_key(beside.system_identifier, damaged.name)])
    put(beside, damaged)

    trouble = beside.shadow.trouble("splice")
    assert (trouble.segment, trouble.lsn) == (spliced.name, format_lsn(spliced.start))
    assert format_lsn(first - 4096) in trouble.what
    beside.store.delete([file_key(beside.system_identifier, spliced.name)])
    put(beside, spliced)
    goes_on(beside)


def test_a_foreign_timeline_is_named_and_a_record_that_cannot_be_replayed_is_left_behind_by_a_base_backup(
    beside: Beside,
) -> None:
    """A copy of the cluster archives into its place; and the memory of who archived was at fault."""
    branched, content = unarchived(beside, 2)
    put(beside, branched)
    fork = read_records(content).first
    assert fork is not None
    history = f"1\t{format_lsn(fork)}\tno recovery target specified\n".encode()
    store_once(beside.store, beside.system_identifier, "00000002.history", history, None)
    foreign = replace(branched, timeline=2)
    put(beside, foreign, content)
    trouble = beside.shadow.trouble("foreign timeline")
    assert "timeline 2 branched off" in trouble.what
    assert not trouble.stops
    beside.store.delete([file_key(beside.system_identifier, name) for name in (foreign.name, "00000002.history")])

    bad = branched.next
    other = bytearray(content_of(beside, bad))
    first = read_records(other).first
    assert first is not None
    other[first - bad.start + 20] ^= 1  # the record's checksum; what was stored bears the right marks
    put(beside, bad, bytes(other))
    trouble = beside.shadow.trouble("record that cannot be replayed")
    assert (trouble.segment, trouble.lsn) == (bad.name, format_lsn(first))
    assert "checksum" in trouble.what
    taken = back_up_base(beside.settings, beside.store, SilentReport())
    beside.shadow.until(lambda report: report.backup_id == taken.backup_id, "it did not begin anew")
    beside.store.delete([file_key(beside.system_identifier, bad.name)])
    goes_on(beside)


def test_wal_of_a_server_with_minimal_level_stops_it_at_the_restart(beside: Beside) -> None:
    goes_on(beside)
    place = flushed(beside.cluster.address)
    beside.cluster.stop()
    directory = beside.cluster.directory
    minimal = {"wal_level": "minimal", "max_wal_senders": "0", "summarize_wal": "off"}
    with started(directory, beside.settings.postgres, KEEPS_WAL | minimal) as cluster:
        write(cluster.address)
    with started(directory, beside.settings.postgres, KEEPS_WAL) as cluster:
        again = replace(beside, cluster=cluster)
        write(cluster.address)
        archive_wal(cluster, beside.store)
        trouble = beside.shadow.trouble("minimal WAL")
        assert trouble.lsn is not None
        assert parse_lsn(trouble.lsn) >= place
        settings = beside.settings.model_copy(update={"postgres": cluster.address})
        taken = back_up_base(settings, beside.store, SilentReport())
        beside.shadow.until(lambda report: report.backup_id == taken.backup_id, "it did not begin anew")
        goes_on(again)


def unarchived(beside: Beside, segments: int) -> tuple[Segment, bytes]:
    """Have the server write this many whole segments that are not archived; the first of them, and its bytes."""
    goes_on(beside)
    with connect(beside.cluster.address) as connection:
        row = connection.execute("SELECT pg_walfile_name(pg_current_wal_insert_lsn())").fetchone()
        for _ in range(segments + 1):
            connection.execute("INSERT INTO ledger DEFAULT VALUES")
            connection.execute("SELECT pg_switch_wal()")
        connection.execute("INSERT INTO ledger DEFAULT VALUES")
    assert row is not None
    first = parse_segment_name(row[0])
    beside.store.delete([item.key for item in list_open(beside.store, beside.system_identifier, first)])
    return first, content_of(beside, first)


def content_of(beside: Beside, segment: Segment) -> bytes:
    return (beside.cluster.directory / "pg_wal" / segment.name).read_bytes()


def put(beside: Beside, segment: Segment, content: bytes | None = None) -> None:
    """Archive a segment: as the server has it, or these bytes."""
    stored = content_of(beside, segment) if content is None else content
    store_once(beside.store, beside.system_identifier, segment.name, stored, segment.end)


def goes_on(beside: Beside, *, close_segment: bool = True) -> None:
    """The archive is made level with the server, and the shadow with the archive."""
    moment = write(beside.cluster.address)
    archive_wal(beside.cluster, beside.store, close_segment=close_segment)
    beside.shadow.until_rows(moment.rows)
    beside.shadow.until_level()
