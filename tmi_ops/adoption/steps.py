"""The steps to protection, and which of them are done: facts in, plan out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tmi_ops.adoption.state import Protection


class StepName(StrEnum):
    """In the order in which they are done: each needs those before it."""

    SETTINGS = "settings"
    ROLES = "roles"
    CONNECTION = "connection"
    BUCKET = "bucket"
    KEYS = "keys"
    BASE = "base backup"
    WAL = "WAL"
    LOGICAL = "logical backup"
    PROOF = "proof"
    DRILL = "drill"
    UNITS = "units"


@dataclass(frozen=True)
class Step:
    """`done`: what is there already; empty: it is to be done."""

    name: StepName
    says: str
    done: str = ""


@dataclass(frozen=True)
class Surroundings:
    """What was found before anything is done.

    Attributes:
        given: names of the variables to be written.
        env_file: to where.
        connects: whether the database lets in, for sessions and for replication.
        bucket: whether it is there; None: the store could not be asked.
        has_keys: whether backups are encrypted and signed.
        wants_keys: whether they shall be.
        protection: None: the server or the store could not be asked yet.
        wants_roles: whether tmi_ops is to log in as roles of its own.
        has_roles: whether the settings name them.
        wants_units: whether systemd shall keep it running.
        has_units: whether its units are written as they would be now.
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
    """Every step, the done ones with what is there."""
    there = found.protection or Protection()
    keys = (
        Step(
            StepName.KEYS,
            "make keys that encrypt and sign, and a recovery sheet to print",
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
            "write systemd units of the WAL receiver and the heartbeat, for you to enable",
            "written" if found.has_units else "",
        ),
    )
    return (
        Step(
            StepName.SETTINGS,
            f"write {', '.join(found.given) or 'nothing'} to {found.env_file}, readable by you alone",
            "" if found.given else "the settings name a database and a bucket",
        ),
        *(roles if found.wants_roles or found.has_roles else ()),
        Step(
            StepName.CONNECTION,
            "connect to the database and for replication; the line that pg_hba.conf lacks is shown and waited for",
            "both are let in" if found.connects else "",
        ),
        Step(StepName.BUCKET, "make the bucket", "it is there" if found.bucket else ""),
        *(keys if found.wants_keys or found.has_keys else ()),
        Step(StepName.BASE, "take a base backup of the whole cluster", there.base or ""),
        Step(StepName.WAL, "receive WAL up to now; a replication slot keeps what comes after"),
        Step(StepName.LOGICAL, "take a logical backup", there.logical or ""),
        Step(
            StepName.PROOF,
            "restore that backup into a scratch cluster and compare every row and definition",
            f"{there.logical} is proven" if there.proven else "",
        ),
        Step(
            StepName.DRILL,
            "recover the whole cluster for practice, and measure how long it takes",
            f"passed at {there.drilled_at:%Y-%m-%d %H:%M} UTC" if there.drilled_at else "",
        ),
        *(units if found.wants_units else ()),
    )


def outstanding(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Those that are to be done."""
    return tuple(step for step in steps if not step.done)
