"""Each check finds its kind of damage in a running copy that was damaged on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from tmi_ops.checks.finding import Outcome
from tmi_ops.drill.chain import Bound
from tmi_ops.drill.checks import (
    AMCHECK_PROGRAM,
    check_built_in_rows,
    check_fingerprints,
    check_heartbeat,
    check_relations,
    check_schema,
)
from tmi_ops.drill.copy import check_pages, running_copy
from tmi_ops.drill.findings import said
from tmi_ops.drill.scratch import drill_directory
from tmi_ops.drill.source import read_schema
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs, server_programs
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.point_in_time.destination import Destination
from tmi_ops.recovery.point_in_time.execution import Recovered, execute_recovery
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.drill.lives import NAME, Lived
from tmi_ops_tests.recovery.point_in_time.restoring import plan_to

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Restored:
    recovered: Recovered
    destination: Destination
    programs: Programs
    database: str

    def running(self) -> Iterator[PostgresSettings]:
        with running_copy(self.recovered, self.destination, self.programs) as address:
            yield address.model_copy(update={"database": self.database})


@pytest.fixture(scope="module")
def restored(lived: Lived) -> Iterator[Restored]:
    """The cluster at the restore point, stopped."""
    settings = lived.settings
    plan = plan_to(lived.store, Target(name=NAME), settings.home / "scratch")
    with drill_directory(settings.home / "scratch") as directory:
        destination = Destination(directory / "data")
        recovered = execute_recovery(settings, lived.store, plan, destination, SilentReport())
        programs = server_programs(lived.base.server_version_num // 10000)
        yield Restored(recovered, destination, programs, settings.postgres.database)


@pytest.fixture
def address(restored: Restored) -> Iterator[PostgresSettings]:
    """The copy, running."""
    yield from restored.running()


def test_fingerprints_differ_as_soon_as_one_value_does(
    restored: Restored, lived: Lived, address: PostgresSettings
) -> None:
    report = SilentReport()
    assert check_fingerprints(address, restored.recovered, lived.point, report).outcome is Outcome.OK
    with connect(address) as connection:
        connection.execute("UPDATE journal SET note = 'other' WHERE i = 17")
    found = check_fingerprints(address, restored.recovered, lived.point, report)
    assert found.outcome is Outcome.CRITICAL
    assert said(found) == ("public.journal has the same number of rows, 5000, but different content",)
    with connect(address) as connection:
        connection.execute("UPDATE journal SET note = md5('17') WHERE i = 17")
    elsewhere = lived.point.model_copy(update={"lsn": "0/10", "after_lsn": "0/8"})
    assert check_fingerprints(address, restored.recovered, elsewhere, report).outcome is Outcome.UNKNOWN
    assert check_fingerprints(address, restored.recovered, None, report).outcome is Outcome.UNKNOWN


def test_the_heartbeat_tells_what_is_missing_and_what_should_not_be_there(
    lived: Lived, address: PostgresSettings
) -> None:
    present = lived.beats[:3]
    good = Bound(time=present[-1].written_at + timedelta(seconds=0.001))
    assert check_heartbeat(address, good, lived.beats).outcome is Outcome.OK
    early = check_heartbeat(address, Bound(time=present[0].written_at), lived.beats)
    assert early.outcome is Outcome.CRITICAL
    assert "was written after the target" in said(early)[0]
    late = check_heartbeat(address, Bound(time=lived.beats[3].written_at + timedelta(seconds=6)), lived.beats)
    assert late.outcome is Outcome.CRITICAL
    assert "heartbeat 4" in said(late)[0]
    assert "is missing" in said(late)[0]


def test_what_the_copy_lacks_is_a_failure_unless_the_living_database_lacks_it_too(
    lived: Lived, address: PostgresSettings
) -> None:
    source = read_schema(lived.cluster.address)
    whole = read_schema(address)
    assert check_schema(whole, source).outcome is Outcome.OK
    assert check_built_in_rows(whole, source).outcome is Outcome.OK
    with connect(address) as connection:
        connection.execute("DROP TABLE webhook_url_deny_list")
        connection.execute("DELETE FROM groups WHERE group_name = 'administrators'")
    lacking = read_schema(address)
    schema, rows = check_schema(lacking, source), check_built_in_rows(lacking, source)
    assert schema.outcome is Outcome.CRITICAL
    assert any("webhook_url_deny_list: The table is missing" in finding for finding in said(schema))
    assert rows.outcome is Outcome.CRITICAL
    assert any("administrators" in finding for finding in said(rows))
    assert check_schema(lacking, lacking).outcome is Outcome.OK
    assert check_built_in_rows(lacking, lacking).outcome is Outcome.OK
    assert check_schema(lacking, None).outcome is Outcome.CRITICAL


def test_a_flipped_bit_in_a_table_is_found_by_page_checksums_and_by_amcheck(restored: Restored) -> None:
    programs = restored.programs
    assert check_pages(restored.recovered, programs).outcome is Outcome.OK
    for address in restored.running():
        with connect(address) as connection:
            row = connection.execute("SELECT pg_relation_filepath('journal')").fetchone()
            connection.execute("CHECKPOINT")
            connection.execute("CREATE DATABASE aside ALLOW_CONNECTIONS false")
        sound = check_relations(address, programs)
        assert sound.outcome is (Outcome.OK if programs.major >= AMCHECK_PROGRAM else Outcome.UNKNOWN)
        assert sound.outcome is Outcome.UNKNOWN or sound.seen.endswith("as they refuse connections: aside.")
    assert row is not None
    file = Path(restored.destination.directory) / row[0]
    whole = file.read_bytes()
    file.write_bytes(whole[:9000] + bytes([whole[9000] ^ 4]) + whole[9001:])
    pages = check_pages(restored.recovered, programs)
    assert pages.outcome is Outcome.CRITICAL
    assert pages.seen.startswith("1 pages")
    assert row[0] in said(pages)[0]
    for address in restored.running():
        relations = check_relations(address, programs)
        if programs.major >= AMCHECK_PROGRAM:
            assert relations.outcome is Outcome.CRITICAL
            assert any("journal" in finding for finding in said(relations))
    file.write_bytes(whole)
