"""Verdicts that need no server: what cannot be brought about in a test, and the edges of what can."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tmi_ops.checks.finding import Outcome
from tmi_ops.health.counters import Change
from tmi_ops.health.probes.bloat import Bloat, Bloated, judge_tables
from tmi_ops.health.probes.disk import Checksums, DiskSpace, Filesystem, judge_checksums, judge_disk
from tmi_ops.health.probes.locks import Blocked, Party, Waiter, judge_blocked
from tmi_ops.health.probes.replication import Slot, Slots, Standby, Standbys, judge_slots, judge_standbys
from tmi_ops.health.probes.schema import SchemaFinding, SchemaFindings, judge_findings
from tmi_ops.health.probes.security import FailedLogins, count_failures, judge_failed_logins
from tmi_ops.health.probes.sequences import SequenceState
from tmi_ops.health.probes.sessions import ConnectionGroup, Connections, judge_connections
from tmi_ops.health.probes.sizes import Sizes
from tmi_ops.health.probes.sizes import judge as judge_sizes
from tmi_ops.health.probes.transactions import (
    CacheHits,
    TemporaryFiles,
    Transactions,
    judge_cache,
    judge_temporary_files,
    judge_transactions,
)
from tmi_ops.health.probes.vacuum import TableUpkeep, Upkeep, judge_upkeep
from tmi_ops.health.probes.wal import (
    Archiver,
    Checkpoints,
    Durability,
    judge_archiver,
    judge_checkpoints,
    judge_durability,
)
from tmi_ops.health.probes.wraparound import LAST_AGE, Aged, DatabaseAge, Wraparound
from tmi_ops.health.probes.wraparound import judge as judge_wraparound
from tmi_ops.health.registry import PROBES
from tmi_ops.health.thresholds import Thresholds

LIMITS = {probe.name: probe.thresholds for probe in PROBES}
GIGA = 10**9
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(("used", "status"), [(79, Outcome.OK), (80, Outcome.WARNING), (95, Outcome.CRITICAL)])
def test_connections_are_judged_by_what_ordinary_roles_may_use(used: int, status: Outcome) -> None:
    reading = Connections((ConnectionGroup("app", "tmi", "idle", used),), max_connections=103, usable=100)
    assert judge_connections(reading, LIMITS["connections"]).outcome is status


@pytest.mark.parametrize(("free", "status"), [(21, Outcome.OK), (20, Outcome.WARNING), (10, Outcome.CRITICAL)])
def test_disk_space_is_judged_by_the_fullest_filesystem(free: int, status: Outcome) -> None:
    reading = DiskSpace((Filesystem("WAL", "/wal", 100 * GIGA, free * GIGA), Filesystem("data", "/", GIGA, GIGA)))
    answer = judge_disk(reading, LIMITS["disk_space"])
    assert answer.outcome is status
    assert f"{free}.0 GB free (WAL: /wal)" in answer.seen
    assert reading.numbers()["disk free (GB)"] == 1.0  # the same unit in the plot


def test_checksums_that_are_off_are_a_warning_with_how_to_switch_them_on() -> None:
    answer = judge_checksums(Checksums(False, 0, None, ()), LIMITS["checksum_failures"])
    assert answer.outcome is Outcome.WARNING
    assert "pg_checksums --enable" in answer.advice.command[0]


def waiter(pid: int, *blockers: int) -> Waiter:
    return Waiter(pid, list(blockers), "ShareLock", "relation", "t", 30.0)


def test_a_long_queue_is_followed_to_its_roots_and_a_circle_has_none() -> None:
    queue = Blocked((waiter(4, 3), waiter(3, 2), waiter(2, 1), waiter(9, 1, 8)), {})
    assert queue.roots() == {1: 4, 8: 1}
    circle = Blocked((waiter(1, 2), waiter(2, 1)), {})
    assert circle.roots() == {}
    assert judge_blocked(circle, LIMITS["blocked_sessions"]).outcome is Outcome.WARNING


def test_a_prepared_transaction_in_the_way_is_not_to_be_terminated() -> None:
    party = Party(7, "app", "tmi", "active", "")
    answer = judge_blocked(Blocked((waiter(7, 0),), {7: party}), LIMITS["blocked_sessions"])
    assert "a prepared transaction" in answer.seen
    assert "terminate" not in " ".join(answer.advice.sql)


def test_few_transactions_or_blocks_are_not_judged_by_percentage() -> None:
    few = {"xact_commit": 1, "xact_rollback": 50, "deadlocks": 0, "blks_hit": 0, "blks_read": 9, "temp_bytes": 0}
    assert judge_transactions(Transactions(few, None), LIMITS["transactions"]).outcome is Outcome.OK
    assert judge_cache(CacheHits(few, None, "128MB"), LIMITS["cache_hit_ratio"]).outcome is Outcome.OK


def test_old_deadlocks_are_no_warning_and_old_temporary_files_neither() -> None:
    old = {"xact_commit": 1e6, "xact_rollback": 1, "deadlocks": 5, "temp_files": 9, "temp_bytes": 1e12}
    assert judge_transactions(Transactions(old, None), LIMITS["transactions"]).outcome is Outcome.OK
    assert judge_temporary_files(TemporaryFiles(old, None, "4MB"), LIMITS["temporary_files"]).outcome is Outcome.OK
    now = Change(
        3600, {"xact_commit": 9, "xact_rollback": 0, "deadlocks": 0, "temp_files": 9, "temp_bytes": 2.0 * GIGA}
    )
    assert judge_temporary_files(TemporaryFiles(old, now, "4MB"), LIMITS["temporary_files"]).outcome is Outcome.WARNING


def test_a_burst_of_a_minute_is_not_taken_for_a_day_of_growth() -> None:
    minute = Sizes("tmi", {"tmi": 1e9}, (), growth_s=60, growth=1.0 * GIGA, table_growth={})
    assert judge_sizes(minute, LIMITS["sizes"]).outcome is Outcome.OK
    day = Sizes("tmi", {"tmi": 1e9}, (), growth_s=86400, growth=6.0 * GIGA, table_growth={"threats": 5.0 * GIGA})
    answer = judge_sizes(day, LIMITS["sizes"])
    assert answer.outcome is Outcome.WARNING
    assert "most of it in threats (5.0 GB)" in answer.advice.text


def test_waste_in_something_small_is_not_judged() -> None:
    small = Bloat((Bloated("t", 2_000_000, 1_900_000),), exact=False, what="table")
    assert judge_tables(small, LIMITS["table_bloat"]).outcome is Outcome.OK


def upkeep(*, autovacuum: bool, dead: int) -> Upkeep:
    table = TableUpkeep("public.t", 100, dead, 0, 70, 60, None, None, True)
    return Upkeep((table,), autovacuum, workers=3, working=0)


@pytest.mark.parametrize(
    ("autovacuum", "dead", "status"),
    [
        (True, 0, Outcome.OK),
        (True, 200, Outcome.WARNING),
        (True, 800, Outcome.CRITICAL),
        (False, 0, Outcome.WARNING),
        (False, 800, Outcome.CRITICAL),
    ],
)
def test_autovacuum_is_judged_by_how_far_it_is_behind_and_never_well_when_off(
    autovacuum: bool, dead: int, status: Outcome
) -> None:
    assert judge_upkeep(upkeep(autovacuum=autovacuum, dead=dead), LIMITS["autovacuum"]).outcome is status


def wraparound(*databases: DatabaseAge, holders: tuple[Aged, ...] = ()) -> Wraparound:
    return Wraparound("transaction", databases, (Aged("public.t", 7),), holders, 200_000_000)


def test_wraparound_names_what_holds_freezing_back_and_what_to_freeze_where() -> None:
    half = LAST_AGE // 2 + 1
    held = wraparound(DatabaseAge("tmi", True, True, half), holders=(Aged("slot old", half), Aged("pid 7 (app)", 9)))
    limits = LIMITS["transaction_wraparound"]
    answer = judge_wraparound(held, limits)
    assert answer.outcome is Outcome.CRITICAL
    assert answer.advice.text.startswith("end what blocks freezing (slot old, ")
    assert "pid 7" not in answer.advice.text
    assert answer.advice.sql == ("VACUUM (FREEZE, VERBOSE) public.t;",)
    other = judge_wraparound(wraparound(DatabaseAge("other", False, True, half)), limits)
    assert other.advice.command == ("vacuumdb --freeze --dbname other",)
    closed = judge_wraparound(
        wraparound(DatabaseAge("template0", False, False, half)), LIMITS["transaction_wraparound"]
    )
    assert "only it can freeze" in closed.advice.text


def test_few_checkpoints_are_not_judged() -> None:
    assert judge_checkpoints(Checkpoints(0, 9, None, "1GB", "5min"), LIMITS["checkpoints"]).outcome is Outcome.OK
    assert judge_checkpoints(Checkpoints(1, 9, None, "1GB", "5min"), LIMITS["checkpoints"]).outcome is Outcome.CRITICAL


def test_checkpoints_of_long_ago_do_not_count_once_there_were_enough_since() -> None:
    since = Change(86400, {"timed": 280, "requested": 8})
    answer = judge_checkpoints(Checkpoints(300, 900, since, "1GB", "5min"), LIMITS["checkpoints"])
    assert answer.outcome is Outcome.OK
    assert answer.seen == "288 checkpoints in the last 24 h, 3 % of them requested"


def archiver(**changes: object) -> Archiver:
    facts = {
        "mode": "on", "configured": True, "archived": 5, "failed": 1, "last_archived_wal": "A",
        "last_archived_time": NOON, "last_failed_wal": None, "last_failed_time": None, "failed_ago_s": None,
        "waiting": 0,
    }  # fmt: skip
    return Archiver(**{**facts, **changes})  # type: ignore[arg-type]


def test_an_archiver_that_recovered_is_well_and_one_that_falls_behind_is_not() -> None:
    limits = LIMITS["archiver"]
    assert judge_archiver(archiver(last_failed_time=NOON.replace(hour=11)), limits).outcome is Outcome.OK
    assert judge_archiver(archiver(mode="off", waiting=None), limits).outcome is Outcome.OK
    assert judge_archiver(archiver(waiting=8), limits).outcome is Outcome.WARNING
    assert judge_archiver(archiver(waiting=64), limits).outcome is Outcome.CRITICAL
    hidden = judge_archiver(archiver(waiting=None), limits)
    assert hidden.outcome is Outcome.OK
    assert "this role may not see how many wait" in hidden.seen


def test_commits_that_a_crash_loses_are_a_warning() -> None:
    settings = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "off"}
    assert judge_durability(Durability(settings), LIMITS["durability"]).outcome is Outcome.WARNING
    assert (
        judge_durability(Durability({**settings, "synchronous_commit": "on"}), LIMITS["durability"]).outcome
        is Outcome.OK
    )


def slot(status: str, held: float = 0.0, *, active: bool = True) -> Slot:
    return Slot("tmi_ops", "physical", "", active, status, held, None)


def test_slots_are_judged_by_what_they_hold_and_by_what_is_about_to_be_taken_from_them() -> None:
    limits = LIMITS["replication_slots"]
    assert judge_slots(Slots((slot("reserved"),), None), limits).outcome is Outcome.OK
    # The receiver of tmi_ops catches up from time to time, so being inactive alone is no sign.
    assert judge_slots(Slots((slot("reserved", active=False),), None), limits).outcome is Outcome.OK
    assert judge_slots(Slots((slot("extended", 2.0 * GIGA),), None), limits).outcome is Outcome.WARNING
    assert judge_slots(Slots((slot("extended", 9.0 * GIGA),), None), limits).outcome is Outcome.CRITICAL
    assert judge_slots(Slots((slot("unreserved"),), GIGA), limits).outcome is Outcome.CRITICAL


def test_only_commits_that_wait_can_hang() -> None:
    standby = Standby("a", "local", "streaming", "async", 0.0, None)
    assert judge_standbys(Standbys((standby,), "b", waits=True), LIMITS["replication_lag"]).outcome is Outcome.CRITICAL
    assert judge_standbys(Standbys((standby,), "b", waits=False), LIMITS["replication_lag"]).outcome is Outcome.OK


def test_what_the_models_do_not_know_is_no_illness_but_a_missing_check_is_a_warning() -> None:
    extra = SchemaFinding("WARN", "extra_table", "more", "Not in TMI's models.")
    lacking = SchemaFinding("WARN", "missing_check", "threats", "The CHECK is missing.")
    assert judge_findings(SchemaFindings((extra,)), LIMITS["schema_findings"]).outcome is Outcome.OK
    assert judge_findings(SchemaFindings((lacking, extra)), LIMITS["schema_findings"]).outcome is Outcome.WARNING


def test_one_typing_error_a_minute_ago_is_no_attack() -> None:
    limits = LIMITS["failed_logins"]
    assert judge_failed_logins(FailedLogins({"ada": 3}, 60, 100, True), limits).outcome is Outcome.OK
    assert judge_failed_logins(FailedLogins({"ada": 30}, 60, 100, True), limits).outcome is Outcome.WARNING
    assert judge_failed_logins(FailedLogins({"ada": 30}, 36000, 100, True), limits).outcome is Outcome.OK
    assert "current log file" in judge_failed_logins(FailedLogins({}, None, 0, True), limits).seen


def test_failed_logins_are_told_from_other_lines_in_every_format_of_the_log() -> None:
    stderr = """2026-01-01 12:00:00 UTC [1] FATAL:  password authentication failed for user "ada"
2026-01-01 12:00:00 UTC [1] DETAIL:  Connection matched pg_hba.conf line 1: "host all all all md5"
2026-01-01 12:00:00 UTC [2] FATAL:  no pg_hba.conf entry for host "10.0.0.7", user "bob", database "tmi", no encryption
2026-01-01 12:00:00 UTC [3] FATAL:  role "eve" does not exist
2026-01-01 12:00:00 UTC [3] FATAL:  role "nobody" is not permitted to log in
2026-01-01 12:00:00 UTC [4] ERROR:  role "typo" does not exist
2026-01-01 12:00:00 UTC [4] FATAL:  terminating connection due to administrator command"""
    assert count_failures(stderr) == {"ada": 1, "bob": 1, "eve": 1, "nobody": 1}
    csv = '2026-01-01,"ada","tmi",1,FATAL,28P01,"password authentication failed for user ""ada""",'
    json = '{"error_severity":"FATAL","state_code":"28P01","message":"authentication failed for user \\\\"ada\\\\""}'
    assert count_failures(csv) == count_failures(json) == {"ada": 1}


def test_a_sequence_that_goes_round_or_was_never_used_has_used_nothing() -> None:
    facts = (True, True, 1, 1, 10)
    assert SequenceState("s", None, None, None, 10, *facts, cycle=True).percent == 0
    assert SequenceState("s", None, None, None, None, *facts, cycle=False).percent == 0
    assert SequenceState("s", None, None, None, 10, *facts, cycle=False).percent == 100


def test_thresholds_describe_themselves() -> None:
    assert Thresholds(80, 95, "%").describe() == "80 / 95 %"
    assert Thresholds(1, None, "indexes").describe() == "1 / - indexes"
    assert Thresholds(90, 70, "%", lower_is_worse=True).describe() == "below 90 / 70 %"
