"""Plans the steps of `tmi-ops init`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tmi_ops.adoption.state import Protection


class StepName(StrEnum):
    """In the order of execution: each needs those before it."""

    SETTINGS = "settings"
    ROLES = "roles"
    CONNECTION = "connection"
    BUCKET = "bucket"
    KEYS = "keys"
    BASE = "base backup"
    WAL = "WAL"
    LOGICAL = "logical backup"
    VERIFICATION = "verification"
    DRILL = "drill"
    UNITS = "units"


@dataclass(frozen=True)
class Step:
    """`done`: what exists already; empty: the step is outstanding."""

    name: StepName
    says: str
    done: str = ""


@dataclass(frozen=True)
class Surroundings:
    """The state before the first step.

    Attributes:
        given: names of the variables to write.
        env_file: the file to write them to.
        connects: whether the database accepts connections, including replication.
        bucket: whether it exists; None: the store could not be read.
        has_keys: whether encryption and signatures are configured.
        wants_keys: whether they are wanted.
        protection: None: the server or the store could not be read yet.
        wants_roles: whether tmi_ops should connect as roles of its own.
        has_roles: whether the settings name them.
        wants_units: whether systemd units are wanted.
        has_units: whether they are written and up to date.
    """

    given: Sequence[str]
    env_file: str
    connects: bool
    bucket: bool | None
    has_keys: bool
    wants_keys: bool
    protection: Protection | None
    wants_roles: bool = False
    has_roles: bool = False
    wants_units: bool = False
    has_units: bool = False


def plan_adoption(found: Surroundings) -> tuple[Step, ...]:
    """All steps; those that are done with what exists."""
    there = found.protection or Protection()
    keys = (
        Step(
            StepName.KEYS,
            "create encryption and signing keys, and a recovery sheet to print",
            "encryption and signatures are configured" if found.has_keys else "",
        ),
    )
    roles = (
        Step(
            StepName.ROLES,
            "create a role for backups and WAL and one for statistics, each with the rights it needs and no others",
            "the settings name them" if found.has_roles else "",
        ),
    )
    units = (
        Step(
            StepName.UNITS,
            "write systemd units for the WAL receiver and the heartbeat; you enable them",
            "written" if found.has_units else "",
        ),
    )
    return (
        Step(
            StepName.SETTINGS,
            f"write {', '.join(found.given) or 'nothing'} to {found.env_file} (only you can read it)",
            "" if found.given else "the settings name a database and a store",
        ),
        *(roles if found.wants_roles or found.has_roles else ()),
        Step(
            StepName.CONNECTION,
            "connect to the database and for replication; if pg_hba.conf lacks a line, show it and retry",
            "both connections work" if found.connects else "",
        ),
        Step(StepName.BUCKET, "create the bucket, or the directory of the store", "it exists" if found.bucket else ""),
        *(keys if found.wants_keys or found.has_keys else ()),
        Step(StepName.BASE, "take a base backup of the whole cluster", there.base or ""),
        Step(StepName.WAL, "archive WAL up to now; a replication slot retains what follows"),
        Step(StepName.LOGICAL, "take a logical backup", there.logical or ""),
        Step(
            StepName.VERIFICATION,
            "restore the logical backup into a scratch cluster and compare every row and definition",
            f"{there.logical} is verified" if there.verified else "",
        ),
        Step(
            StepName.DRILL,
            "recover the whole cluster in a drill, and measure how long it takes",
            f"passed at {there.drilled_at:%Y-%m-%d %H:%M} UTC" if there.drilled_at else "",
        ),
        *(units if found.wants_units else ()),
    )


def outstanding(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps that are not done."""
    return tuple(step for step in steps if not step.done)
