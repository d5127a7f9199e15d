"""A drill's evidence as JSON. `page.py` renders it as a page.

It is stored beside the drilled backup, and again below `drills/`, where it outlives that backup::

    base/<backup id>/drill-<time>-<4 hex>.json, .html
    drills/<time>-drill-<4 hex>.json, .html
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from tmi_ops.checks.finding import Answer, not_applicable, unknown
from tmi_ops.drill.findings import CheckOutcome, failed, passed
from tmi_ops.store.backup_documents import backup_folder
from tmi_ops.store.changes import DRILLS
from tmi_ops.store.described import read_described, write_described
from tmi_ops.store.folders import SEALED
from tmi_ops.store.manifest import SEALED_REASON, BrokenRecordError
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.overview import changing
from tmi_ops.store.signed import write_once
from tmi_ops.store.small_objects import sealed

FOLDER = "drills"

CheckName = Literal[
    "recovery",
    "page_checksums",
    "amcheck",
    "schema",
    "built_in_rows",
    "heartbeat",
    "fingerprints",
    "own_checks",
    "rto",
    "rpo",
]
TITLES: dict[CheckName, str] = {
    "recovery": "Recovered to the target",
    "page_checksums": "Page checksums (pg_checksums)",
    "amcheck": "Tables and indexes (pg_amcheck)",
    "schema": "The schema that TMI needs",
    "built_in_rows": "Built-in rows",
    "heartbeat": "Heartbeat chain",
    "fingerprints": "Fingerprints of the restore point",
    "own_checks": "The application's own checks",
    "rto": "Recovery time objective",
    "rpo": "Recovery point objective",
}
OBJECTIVE_CHECKS: tuple[CheckName, ...] = ("rto", "rpo")


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Check(_Fact):
    """One check and its result. `findings`: what is wrong or worth knowing, one sentence each."""

    name: CheckName
    outcome: CheckOutcome
    detail: str
    findings: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def title(self) -> str:
        return TITLES[self.name]

    @property
    def answer(self) -> Answer:
        """The result in the form that all checks share."""
        if self.outcome in ("not run", "not applicable"):
            return (unknown if self.outcome == "not run" else not_applicable)(self.detail)
        return (passed if self.outcome == "passed" else failed)(self.detail, self.findings)


class DrilledBackup(_Fact):
    """A backup of the restored chain. Sizes in bytes; the manifest lists the checksum of every object."""

    backup_id: str
    format: Literal["full", "incremental"]
    taken_at: AwareDatetime
    size: int
    manifest_sha256: str


class WindowBase(_Fact):
    """A base backup inside the recovery window."""

    backup_id: str
    format: Literal["full", "incremental"]
    taken_at: AwareDatetime


class Window(_Fact):
    """The recovery window when the drill began. `newest_at`: the newest recovery point."""

    earliest_at: AwareDatetime
    newest_at: AwareDatetime
    newest_lsn: str
    bases: tuple[WindowBase, ...]


class DrillTarget(_Fact):
    """The target. `chosen`: asked for, or at random inside the window; `seed` then selects the same one again."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, serialize_by_alias=True)

    text: str = Field(alias="words")
    kind: Literal["latest", "time", "lsn", "name"]
    chosen: Literal["asked for", "at random"]
    time: AwareDatetime | None = None
    lsn: str | None = None
    name: str | None = None
    seed: int | None = None


class Copy(_Fact):
    """The recovered copy. Sizes in bytes; `rows` by table, `estimated` names tables too large to count."""

    lsn: str
    last_commit_at: AwareDatetime | None
    stopped: str
    timeline: int
    restored_size: int
    replayed_size: int
    rows: dict[str, int] = Field(default_factory=dict)
    estimated: tuple[str, ...] = ()


class Evidence(_Fact):
    """What an auditor needs to know about a drill. Durations in seconds, phases in order; sizes in bytes.

    Args:
        recovery_seconds: from the first request to the store until the copy answered queries.
        rto_seconds: the same, including verification; compared with the objective.
        rpo_seconds: how much would have been lost if the server had been lost when the drill began.
        copy_: None when the recovery failed.
    """

    format_version: Literal[1] = 1
    drill_id: str
    environment: str
    outcome: Literal["passed", "failed"]
    reasons: tuple[str, ...] = ()
    started_at: AwareDatetime
    finished_at: AwareDatetime
    host: str
    store: str
    database: str
    system_identifier: str
    source_version: str
    programs_version: str
    tmi_ops_version: str
    backups: tuple[DrilledBackup, ...]
    window: Window
    target: DrillTarget
    notes: tuple[str, ...] = ()
    disk_needed: int
    copy_: Copy | None = Field(default=None, alias="copy")
    phases: dict[str, float]
    recovery_seconds: float
    rto_seconds: float
    rto_objective_seconds: float
    rpo_seconds: float
    rpo_objective_seconds: float
    checks: tuple[Check, ...]

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    @property
    def backup_id(self) -> str:
        """The backup that the recovery began with."""
        return self.backups[-1].backup_id

    def check(self, name: CheckName) -> Check:
        """The result of one check."""
        return next(check for check in self.checks if check.name == name)

    @property
    def sound(self) -> bool:
        """Whether no check of the copy failed, regardless of the objectives."""
        return not any(check.outcome == "failed" for check in self.checks if check.name not in OBJECTIVE_CHECKS)


def new_drill_id(now: datetime) -> str:
    """A name that sorts by time: `20261124T120000Z-drill-7f3a`."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-drill-{secrets.token_hex(2)}"


def evidence_keys(evidence: Evidence) -> tuple[str, str]:
    """The key beside the backup and the one that outlives it, both without suffix."""
    time, _, token = evidence.drill_id.split("-")
    return f"{backup_folder(evidence.backup_id)}/drill-{time}-{token}", f"{FOLDER}/{evidence.drill_id}"


def record_evidence(store: ObjectStore, evidence: Evidence, page: str) -> str:
    """Store the evidence and its page.

    Returns:
        The key of the page beside the backup; in an encrypted store it is sealed.

    Raises:
        StoreError: the store failed.
    """
    keys = evidence_keys(evidence)
    ending = f".html{SEALED}" if store.recipients else ".html"
    with changing(store, evidence.backup_id, DRILLS):
        _write(store, keys, ending, evidence, page)
    return f"{keys[0]}{ending}"


def _write(store: ObjectStore, keys: tuple[str, str], ending: str, evidence: Evidence, page: str) -> None:
    for key in keys:
        write_once(store, f"{key}{ending}", sealed(store, page.encode()), "proof")
        write_described(store, f"{key}.json", evidence_json(in_clear(evidence)), evidence_json(evidence), "proof")


def in_clear(evidence: Evidence) -> Evidence:
    """The part that is stored unencrypted: outcomes, times, positions and sizes, nothing about the content."""
    copy = evidence.copy_
    return evidence.model_copy(
        update={
            "reasons": (SEALED_REASON,) if evidence.reasons else (),
            "notes": (),
            "copy_": copy.model_copy(update={"rows": {}, "estimated": ()}) if copy else None,
            "checks": tuple(check.model_copy(update={"detail": "", "findings": ()}) for check in evidence.checks),
        }
    )


def evidence_json(evidence: Evidence) -> bytes:
    """The evidence in its stored form."""
    return evidence.model_dump_json(indent=2, by_alias=True).encode() + b"\n"


def list_drills(store: ObjectStore) -> list[str]:
    """The ids of all drills, newest first."""
    keys = (item.key for item in store.list_objects(f"{FOLDER}/"))
    return sorted((key[len(FOLDER) + 1 : -len(".json")] for key in keys if key.endswith(".json")), reverse=True)


def read_evidence(store: ObjectStore, drill_id: str) -> Evidence:
    """The evidence of one drill.

    Raises:
        ObjectMissingError: there is no such drill.
        BrokenRecordError: the evidence cannot be read.
    """
    key = f"{FOLDER}/{drill_id}.json"
    try:
        evidence = Evidence.model_validate_json(read_described(store, key, "proof"))
    except ValidationError:
        raise BrokenRecordError(f"The drill evidence {key} cannot be read.") from None
    if evidence.drill_id != drill_id:
        raise BrokenRecordError(f"The drill evidence {key} is of another drill, {evidence.drill_id}: it was renamed.")
    return evidence
