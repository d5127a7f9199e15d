"""Which steps to protection are done."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest

from tmi_ops.adoption.state import Protection
from tmi_ops.adoption.steps import StepName, Surroundings, outstanding, plan_adoption

EVERYTHING = Surroundings(
    (),
    ".env.production",
    connects=True,
    bucket=True,
    has_keys=True,
    wants_keys=True,
    protection=Protection("base", "logical", verified=True, drilled_at=datetime(2026, 11, 28, tzinfo=UTC)),
)


def names(found: Surroundings) -> list[StepName]:
    return [step.name for step in outstanding(plan_adoption(found))]


def test_of_a_database_that_nobody_protects_every_step_is_to_be_done() -> None:
    wanted = Surroundings(
        ("POSTGRES_DB",), ".env.production", False, None, False, True, None, wants_roles=True, wants_units=True
    )
    assert names(wanted) == list(StepName)


def test_where_all_is_there_only_wal_is_received_again() -> None:
    assert names(EVERYTHING) == [StepName.WAL]


def test_keys_are_no_step_for_who_wants_none() -> None:
    without = Surroundings((), "f", connects=True, bucket=True, has_keys=False, wants_keys=False, protection=None)
    assert StepName.KEYS not in [step.name for step in plan_adoption(without)]


def test_roles_come_before_the_connection_that_uses_them_and_are_done_once_the_settings_name_them() -> None:
    wanting = dataclasses.replace(EVERYTHING, connects=False, wants_roles=True)
    assert names(wanting) == [StepName.ROLES, StepName.CONNECTION, StepName.WAL]
    assert names(dataclasses.replace(wanting, has_roles=True)) == [StepName.CONNECTION, StepName.WAL]
    assert StepName.ROLES not in [step.name for step in plan_adoption(EVERYTHING)]


def test_units_are_a_step_for_who_wants_them_and_done_once_they_are_written() -> None:
    def wanting(**units: bool) -> Surroundings:
        return dataclasses.replace(EVERYTHING, **units)

    assert names(wanting(wants_units=True)) == [StepName.WAL, StepName.UNITS]
    assert names(wanting(wants_units=True, has_units=True)) == [StepName.WAL]
    assert StepName.UNITS not in [step.name for step in plan_adoption(wanting())]


@pytest.mark.parametrize(
    ("protection", "left"),
    [
        (Protection("base", None), [StepName.WAL, StepName.LOGICAL, StepName.VERIFICATION, StepName.DRILL]),
        (Protection("base", "logical"), [StepName.WAL, StepName.VERIFICATION, StepName.DRILL]),
        (Protection("base", "logical", verified=True), [StepName.WAL, StepName.DRILL]),
    ],
)
def test_after_an_interruption_it_goes_on_from_what_is_there(protection: Protection, left: list[StepName]) -> None:
    found = Surroundings((), "f", connects=True, bucket=True, has_keys=True, wants_keys=True, protection=protection)
    assert names(found) == left
