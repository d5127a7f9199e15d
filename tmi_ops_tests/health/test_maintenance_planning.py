"""Plans from results, without a server; and the hours a run may work in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tmi_ops.errors import SettingsError
from tmi_ops.health.answer import CannotTell, Cause, Reading
from tmi_ops.health.examine import Examined, unknown
from tmi_ops.health.maintenance.limits import Limits, parse_window
from tmi_ops.health.maintenance.planning import PROBES, plan_maintenance
from tmi_ops.health.maintenance.steps import Analyze, DropLeftover, EndSession, Plan, Rebuild, Vacuum
from tmi_ops.health.probes.bloat import Bloat, BloatedIndex
from tmi_ops.health.probes.disk import DiskSpace, Filesystem
from tmi_ops.health.probes.indexes import InvalidIndex, InvalidIndexes
from tmi_ops.health.probes.sessions import Session, Sessions
from tmi_ops.health.probes.vacuum import Statistics, TableUpkeep, Upkeep
from tmi_ops.health.probes.wraparound import LAST_AGE, Aged, DatabaseAge, Wraparound
from tmi_ops.health.registry import PROBES as ALL_PROBES

MEGA = 1024**2
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
OLD = LAST_AGE // 2


def session(pid: int, seconds: float, *, privileged: bool = False, application: str = "shop") -> Session:
    return Session(
        pid, NOON, NOON, "app", application, "local", "tmi", "idle in transaction", privileged, seconds, "SELECT 1"
    )


def table(name: str, *, dead: int = 0, modified: int = 0) -> TableUpkeep:
    return TableUpkeep(name, 1000, dead, modified, 100, 100, None, None, True)


def ages(what: str, age: int, *tables: Aged, ours: bool = True) -> Wraparound:
    return Wraparound(what, (DatabaseAge("tmi", ours, True, age),), tables, (), 200_000_000)


def invalid(name: str, *, building: bool = False, original: str | None = None) -> InvalidIndex:
    return InvalidIndex(f"public.{name}", "public.t", name, False, "", building, original)


def planned(limits: Limits | None = None, **readings: Reading | CannotTell) -> Plan:
    """The plan for these readings; of the other probes all is well."""
    well: dict[str, Reading] = {
        "idle_in_transaction": Sessions((), "idle transactions"),
        "long_running_queries": Sessions((), "running queries"),
        "autovacuum": Upkeep((), True, 3, 0),
        "analyze": Statistics((), True, 3, 0),
        "transaction_wraparound": ages("transaction", 7),
        "multixact_wraparound": ages("multixact", 7),
        "invalid_indexes": InvalidIndexes(()),
        "index_bloat": Bloat((), False, "index"),
        "disk_space": DiskSpace((Filesystem("data", "/", 1000 * MEGA, 900 * MEGA),)),
    }
    assert set(well) == set(PROBES)
    results = []
    for probe in ALL_PROBES:
        given = readings.get(probe.name, well.get(probe.name))
        if isinstance(given, CannotTell):
            results.append(Examined(probe, probe.thresholds, unknown(given), None, 0))
        elif given is not None:
            results.append(Examined(probe, probe.thresholds, probe.judge(given, probe.thresholds), given, 0))
    return plan_maintenance(results, limits or Limits())


def test_where_all_is_well_there_is_nothing_to_do() -> None:
    assert planned() == Plan((), ())


def test_tables_behind_are_vacuumed_the_worst_first_and_not_analysed_once_more() -> None:
    tables = (table("a", dead=300, modified=9000), table("b", dead=3000), table("c", modified=500), table("d"))
    plan = planned(autovacuum=Upkeep(tables, True, 3, 0), analyze=Statistics(tables, True, 3, 0))
    assert [type(step) for step in plan.steps] == [Vacuum, Vacuum, Analyze]
    assert [step.subject for step in plan.steps] == ["b", "a", "c"]
    assert plan.steps[0].sql == "VACUUM (ANALYZE) b;"


def test_old_tables_are_frozen_first_and_vacuumed_once() -> None:
    tables = (Aged("a", OLD), Aged("pg_proc", OLD), Aged("young", 9))
    plan = planned(
        transaction_wraparound=ages("transaction", OLD, *tables),
        multixact_wraparound=ages("multixact", OLD, *tables),
        autovacuum=Upkeep((table("a", dead=3000),), True, 3, 0),
    )
    assert [step.sql for step in plan.steps] == ["VACUUM (FREEZE, ANALYZE) a;", "VACUUM (FREEZE, ANALYZE) pg_proc;"]


def test_another_database_that_is_old_is_named() -> None:
    plan = planned(transaction_wraparound=ages("transaction", OLD, ours=False))
    assert plan.empty
    assert "run maintenance there" in plan.left_out[0].reason


def test_leftovers_are_dropped_before_indexes_are_rebuilt_and_what_is_being_built_is_let_alone() -> None:
    plan = planned(
        invalid_indexes=InvalidIndexes(
            (invalid("broken"), invalid("x_ccnew", original="public.x"), invalid("young", building=True))
        ),
        index_bloat=Bloat(
            (
                BloatedIndex("public.fat", 100 * MEGA, 90 * MEGA, "public.t"),
                BloatedIndex("public.lean", 100 * MEGA, 20 * MEGA, "public.t"),
            ),
            False,
            "index",
        ),
    )
    assert [type(step) for step in plan.steps] == [DropLeftover, Rebuild, Rebuild]
    assert [step.subject for step in plan.steps] == ["public.x_ccnew", "public.broken", "public.fat"]
    assert [one.subject for one in plan.left_out] == ["public.young"]


def test_an_index_whose_rebuild_would_fill_the_disk_is_left_out() -> None:
    fat = Bloat((BloatedIndex("public.fat", 500 * MEGA, 450 * MEGA, "public.t"),), False, "index")
    full = DiskSpace((Filesystem("data", "/", 10000 * MEGA, 900 * MEGA),))
    plan = planned(index_bloat=fat, disk_space=full)
    assert plan.empty
    assert "943.7 MB free" in plan.left_out[0].reason
    hidden = CannotTell(Cause.NOT_VISIBLE, "hidden")
    assert [step.subject for step in planned(index_bloat=fat, disk_space=hidden).steps] == ["public.fat"]


def test_an_index_of_the_system_catalogs_is_left_to_a_person() -> None:
    index = InvalidIndex("pg_class_oid_index", "pg_class", "pg_class_oid_index", True, "", False, None)
    assert planned(invalid_indexes=InvalidIndexes((index,))).empty


def test_sessions_are_only_named_unless_their_end_is_asked_for() -> None:
    idle = Sessions((session(1, 700), session(2, 500)), "idle transactions")
    plan = planned(idle_in_transaction=idle)
    assert plan.empty
    assert [one.subject for one in plan.left_out] == ["pid 1 (app, shop, local)"]
    assert "use `--terminate` to end it" in plan.left_out[0].reason


def test_sessions_are_ended_first_but_never_a_superusers_or_our_own() -> None:
    idle = Sessions(
        (session(1, 9000, application="tmi_ops"), session(2, 8000, privileged=True), session(3, 7000)), "idle"
    )
    running = Sessions((session(4, 4000), session(5, 60)), "running queries")
    plan = planned(
        Limits(terminate=True),
        idle_in_transaction=idle,
        long_running_queries=running,
        autovacuum=Upkeep((table("a", dead=3000),), True, 3, 0),
    )
    assert [step.kind for step in plan.steps] == ["connections", "connections", "vacuum"]
    ended = [step for step in plan.steps if isinstance(step, EndSession)]
    assert [(one.pid, one.idle) for one in ended] == [(3, True), (4, False)]
    assert [one.subject for one in plan.left_out] == ["pid 2 (app, shop, local)"]
    assert ended[1].sql == "SELECT pg_cancel_backend(4);"


def test_only_what_is_asked_for_is_planned() -> None:
    tables = (table("a", dead=9000, modified=9000),)
    plan = planned(
        Limits(kinds=frozenset({"analyze"})),
        autovacuum=Upkeep(tables, True, 3, 0),
        analyze=Statistics(tables, True, 3, 0),
        index_bloat=CannotTell(Cause.RIGHT, "hidden"),
    )
    assert [step.sql for step in plan.steps] == ["ANALYZE a;"]
    assert plan.left_out == ()


def test_what_health_could_not_tell_is_said() -> None:
    plan = planned(index_bloat=CannotTell(Cause.RIGHT, "No statistics are visible."))
    assert plan.left_out[0].subject == "index_bloat"
    assert "No statistics are visible." in plan.left_out[0].reason


@pytest.mark.parametrize(
    ("window", "moment", "left"),
    [
        ("01:00-05:00", "2026-01-10T01:00:00+00:00", timedelta(hours=4)),
        ("01:00-05:00", "2026-01-10T05:00:00+00:00", None),
        ("01:00-05:00", "2026-01-10T00:59:59+00:00", None),
        ("23:00-04:00", "2026-01-10T23:30:00+00:00", timedelta(hours=4, minutes=30)),
        ("23:00-04:00", "2026-01-10T03:30:00+00:00", timedelta(minutes=30)),
        ("23:00-04:00", "2026-01-10T12:00:00+00:00", None),
    ],
)
def test_a_window_is_open_between_its_hours_also_over_midnight(
    window: str, moment: str, left: timedelta | None
) -> None:
    assert parse_window(window, "UTC").remaining(datetime.fromisoformat(moment)) == left


def test_a_window_is_in_its_own_time_zone_and_knows_the_night_that_lacks_an_hour() -> None:
    zurich = parse_window("01:00-05:00", "Europe/Zurich")
    assert zurich.remaining(datetime.fromisoformat("2026-01-10T00:30:00+00:00")) == timedelta(hours=3, minutes=30)
    assert zurich.remaining(datetime.fromisoformat("2026-03-29T00:00:00+00:00")) == timedelta(hours=3)
    assert zurich.describe() == "01:00-05:00 Europe/Zurich"


@pytest.mark.parametrize(
    ("window", "zone"), [("1-5", "UTC"), ("25:00-26:00", "UTC"), ("02:00-02:00", "UTC"), ("01:00-05:00", "Zurich")]
)
def test_a_malformed_window_is_refused_with_how_to_write_it(window: str, zone: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_window(window, zone)
    assert refused.value.hint
