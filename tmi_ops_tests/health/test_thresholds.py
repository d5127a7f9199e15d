from __future__ import annotations

import pytest

from tmi_ops.checks.finding import Outcome, worst_outcome
from tmi_ops.errors import SettingsError
from tmi_ops.health.registry import PROBES
from tmi_ops.health.thresholds import Thresholds, overridden

HIGH = Thresholds(80, 95, "%")
LOW = Thresholds(90, 70, "%", lower_is_worse=True)


@pytest.mark.parametrize(
    ("thresholds", "figure", "status"),
    [
        (HIGH, 79.9, Outcome.OK),
        (HIGH, 80, Outcome.WARNING),
        (HIGH, 95, Outcome.CRITICAL),
        (LOW, 90.1, Outcome.OK),
        (LOW, 90, Outcome.WARNING),
        (LOW, 70, Outcome.CRITICAL),
        (Thresholds(None, None, ""), 1e9, Outcome.OK),
        (Thresholds(None, 1, ""), 1, Outcome.CRITICAL),
    ],
)
def test_a_figure_that_reaches_a_limit_has_crossed_it(thresholds: Thresholds, figure: float, status: Outcome) -> None:
    assert thresholds.status(figure) is status


def test_an_option_wins_over_a_variable_and_this_over_the_default() -> None:
    variables = {"TMI_OPS_HEALTH_A": "10,20", "TMI_OPS_HEALTH_B": "1,2", "TMI_OPS_HEALTH_C": ""}
    found = overridden({"a": HIGH, "b": HIGH, "c": HIGH}, variables, ["a=30,40"])
    assert [(one.warning, one.critical) for one in found.values()] == [(30, 40), (1, 2), (80, 95)]
    assert found["a"].unit == "%"


def test_an_empty_half_means_never() -> None:
    assert overridden({"a": HIGH}, {}, ["a=,90"])["a"] == Thresholds(None, 90, "%")
    assert overridden({"a": HIGH}, {}, ["a=70,"])["a"] == Thresholds(70, None, "%")


@pytest.mark.parametrize("text", ["70", "70,80,90", "many,more", "90,80", "="])
def test_a_malformed_override_is_refused_with_how_to_write_it(text: str) -> None:
    with pytest.raises(SettingsError, match="TMI_OPS_HEALTH_A is malformed") as refused:
        overridden({"a": HIGH}, {"TMI_OPS_HEALTH_A": text})
    assert refused.value.hint


def test_where_little_is_bad_the_lower_figure_is_the_critical_one() -> None:
    assert overridden({"a": LOW}, {}, ["a=50,20"])["a"].critical == 20
    with pytest.raises(SettingsError, match="reaches critical before warning"):
        overridden({"a": LOW}, {}, ["a=20,50"])


def test_an_option_that_names_no_probe_is_refused() -> None:
    with pytest.raises(SettingsError, match="unknown probe: 'conections'"):
        overridden({"connections": HIGH}, {}, ["conections=1,2"])


def test_every_default_is_in_order_and_can_be_crossed() -> None:
    for probe in PROBES:
        limits = (probe.thresholds.warning, probe.thresholds.critical)
        assert any(limit is not None for limit in limits), probe.name
        if None not in limits:
            overridden({probe.name: probe.thresholds}, {}, [f"{probe.name}={limits[0]},{limits[1]}"])


def test_the_worst_of_several_unknown_is_worse_than_well() -> None:
    assert worst_outcome([]) is Outcome.OK
    assert worst_outcome([Outcome.OK, Outcome.UNKNOWN]) is Outcome.UNKNOWN
    assert worst_outcome([Outcome.UNKNOWN, Outcome.WARNING, Outcome.OK]) is Outcome.WARNING
    assert worst_outcome([Outcome.CRITICAL, Outcome.WARNING]) is Outcome.CRITICAL
