"""The metrics, and the dashboard that is made of them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as as_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tmi_ops.objectives.dumps import judge_dumps
from tmi_ops.objectives.metrics import GAUGES, PREFIX, families
from tmi_ops.objectives.status import Status
from tmi_ops.objectives.timetable import plan_timetable
from tmi_ops.settings import OBJECTIVES
from tmi_ops_tests.objectives.facts import NOW, ago, facts, reach
from tmi_ops_tests.objectives.statuses import ALL_DOWN, a_status
from tmi_ops_tests.objectives.test_by_shadow import shadow, stopped
from tmi_ops_tests.objectives.test_dumps import dump

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "recoverability.json"
_NAME = re.compile(rf"\b{PREFIX}_[a-z_0-9]+")


def text_of(status: Status, write: Any = as_openmetrics) -> str:
    class Collector:
        def collect(self) -> list[Metric]:
            return list(families(status))

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())  # type: ignore[arg-type]
    return str(write(registry).decode())


def samples_of(status: Status) -> dict[tuple[str, ...], float]:
    """By name and the labels' values, the environment's apart."""
    return {
        (sample.name, *(value for label, value in sample.labels.items() if label != "environment")): sample.value
        for family in parse_openmetrics(text_of(status))
        for sample in family.samples
    }


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())  # type: ignore[no-any-return]


def test_every_figure_of_the_status_is_there() -> None:
    found = samples_of(a_status())
    assert found["tmi_ops_rpo_seconds",] == 3
    assert found["tmi_ops_rpo_objective_seconds",] == timedelta(minutes=15).total_seconds()
    assert found["tmi_ops_rto_forecast_seconds",] == found["tmi_ops_drill_seconds",] == 480
    assert found["tmi_ops_rto_phase_seconds", "replay"] == 120
    assert found["tmi_ops_standing", "rpo", "met"] == 1
    assert found["tmi_ops_standing", "rpo", "breached"] == 0
    assert found["tmi_ops_reachable", "store"] == 1
    assert {outcome: found["tmi_ops_health_probes", outcome] for outcome in ("ok", "unknown", "critical")} == {
        "ok": 33,
        "unknown": 1,
        "critical": 0,
    }
    shadows = {f"{PREFIX}_{name}" for name in GAUGES if name.startswith("shadow_")}
    dumps = {f"{PREFIX}_{name}" for name in GAUGES if name.startswith("logical_backup_")}
    all_others = {f"{PREFIX}_{name}" for name in GAUGES} - shadows - dumps - {"tmi_ops_slot_left_bytes"}
    assert {name for name, *_ in found} == all_others | {"tmi_ops_build_info"}


def test_a_shadows_figures_are_there_where_its_word_counts() -> None:
    drilled = shadow(behind=4096, promotion=timedelta(seconds=7))
    found = samples_of(a_status(facts(shadow=drilled)))
    assert found["tmi_ops_shadow_verified_timestamp_seconds",] == ago(seconds=4).timestamp()
    assert found["tmi_ops_shadow_report_age_seconds",] == 2
    assert found["tmi_ops_shadow_behind_bytes",] == 4096
    assert found["tmi_ops_shadow_promotion_seconds",] == 7
    assert found["tmi_ops_shadow_replays",] == found["tmi_ops_shadow_sound",] == 1
    found = samples_of(a_status(facts(shadow=stopped())))
    assert (found["tmi_ops_shadow_replays",], found["tmi_ops_shadow_sound",]) == (0, 1)
    assert ("tmi_ops_shadow_promotion_seconds",) not in found, "nobody has practised it"
    found = samples_of(a_status(facts(shadow=shadow(damage="A page is bad."))))
    assert (found["tmi_ops_shadow_replays",], found["tmi_ops_shadow_sound",]) == (1, 0)
    assert ("tmi_ops_shadow_replays",) not in samples_of(a_status())


def test_dumps_of_a_further_database_have_figures_of_their_own() -> None:
    status = a_status()
    assert status.recoverability is not None
    cadence = plan_timetable(OBJECTIVES["production"]).logical
    for dumps, standing, age in (([dump(3, "proven")], "met", 3 * 3600.0), ([], "breached", None)):
        judged = judge_dumps(dumps, cadence, NOW)
        found = samples_of(replace(status, recoverability=replace(status.recoverability, dumps=judged)))
        assert found["tmi_ops_standing", "logical_backups", standing] == 1
        assert found.get(("tmi_ops_logical_backup_age_seconds",)) == age
        assert found["tmi_ops_logical_backup_age_limit_seconds",] == cadence.late_after.total_seconds()
    assert ("tmi_ops_standing", "logical_backups", "met") not in samples_of(status)


def test_what_is_not_known_is_absent_and_not_zero() -> None:
    found = samples_of(a_status(facts(verified=None, newest=reach(ago(seconds=5), verified=False), drills=())))
    assert ("tmi_ops_rpo_seconds",) not in found
    assert ("tmi_ops_drill_seconds",) not in found
    assert found["tmi_ops_standing", "rpo", "breached"] == 1


def test_with_everything_down_it_says_so() -> None:
    found = samples_of(ALL_DOWN)
    assert {target: found["tmi_ops_reachable", target] for target in ("store", "database", "dagster")} == {
        "store": 0,
        "database": 0,
        "dagster": 0,
    }
    assert ("tmi_ops_store_bytes", "wal") not in found
    assert ("tmi_ops_health_probes", "ok") not in found


def test_the_text_format_of_node_exporter_holds_the_same() -> None:
    text = text_of(a_status(), generate_latest)
    known = {line.split()[3] for line in text.splitlines() if line.startswith("# TYPE")}
    assert known == {"gauge"}
    read = {sample.name for family in parse_text(text) for sample in family.samples}
    assert read == {name for name, *_ in samples_of(a_status())}


def test_every_family_says_what_it_is_and_ends_with_its_unit() -> None:
    for family in families(a_status()):
        assert family.documentation.endswith(".")
    counts = (
        "reachable",
        "standing",
        "drill_passed",
        "failed_backups",
        "receiver_at_work",
        "shadow_replays",
        "shadow_sound",
        "store_objects",
        "alerts_open",
        "health_probes",
    )
    for name in GAUGES:
        assert name.endswith(("_seconds", "_bytes", "_ratio")) or name in counts


def test_the_dashboard_names_only_metrics_that_are_exported_and_all_of_them(dashboard: dict[str, Any]) -> None:
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [item["query"]["query"] for item in dashboard["templating"]["list"] if item["type"] == "query"]
    named = {name for expression in expressions for name in _NAME.findall(expression)}
    assert named == {f"{PREFIX}_{name}" for name in GAUGES} | {"tmi_ops_build_info"}


def test_the_dashboard_groups_by_labels_that_the_metrics_have(dashboard: dict[str, Any]) -> None:
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            wanted = set(re.findall(r"{{(\w+)}}", target["legendFormat"])) - {"environment"}
            wanted |= set(re.findall(r"(\w+)(?:!?=~?)\"", target["expr"])) - {"environment"}
            for name in _NAME.findall(target["expr"]):
                labels = GAUGES.get(name.removeprefix(f"{PREFIX}_"), ("", ("version",)))[1]
                assert wanted <= set(labels), (panel["title"], name)


def test_the_dashboards_panels_do_not_overlap(dashboard: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
