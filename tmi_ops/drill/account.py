"""Turns what a drill found into its evidence and the verification record of its backup. Pure."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tmi_ops import __version__
from tmi_ops.drill.evidence import (
    Check,
    CheckName,
    Copy,
    DrilledBackup,
    Evidence,
    Window,
    WindowBase,
    new_drill_id,
)
from tmi_ops.drill.planning import DrillPlan
from tmi_ops.drill.window import RecoveryWindow
from tmi_ops.postgres.wal_files import format_lsn
from tmi_ops.recovery.point_in_time.base_files import UnusableBaseError
from tmi_ops.settings import Objectives, Settings
from tmi_ops.store.manifest import Verification
from tmi_ops.text import format_duration

_ASKED: tuple[CheckName, ...] = ("page_checksums", "amcheck", "schema", "built_in_rows", "heartbeat", "fingerprints")


@dataclass
class Account:
    """What is known about a drill so far. Phases in order, in seconds; disk in bytes.

    `unusable`: set when the recovery failed because a backup's own bytes are damaged.
    """

    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    disk_needed: int = 0
    phases: dict[str, float] = field(default_factory=dict)
    checks: dict[CheckName, Check] = field(default_factory=dict)
    copy: Copy | None = None
    recovery_seconds: float = 0.0
    unusable: UnusableBaseError | None = None


def evidence_of(account: Account, drill: DrillPlan, settings: Settings) -> Evidence:
    """The evidence of a finished drill."""
    plan, base = drill.recovery, drill.recovery.base
    rto_seconds = sum(account.phases.values())
    checks = _all_checks(account, rto_seconds, drill.rpo_seconds, settings.objectives)
    reasons = tuple(f"{check.title}: {check.detail}" for check in checks if check.outcome == "failed")
    objectives = settings.objectives
    return Evidence(
        drill_id=new_drill_id(account.started_at),
        environment=settings.environment,
        outcome="failed" if reasons else "passed",
        reasons=reasons,
        started_at=account.started_at,
        finished_at=datetime.now(UTC),
        host=platform.node(),
        store=settings.store.describe(),
        database=settings.postgres.database,
        system_identifier=base.system_identifier,
        source_version=base.server_version,
        programs_version=drill.programs.version,
        tmi_ops_version=__version__,
        backups=tuple(
            DrilledBackup(
                backup_id=link.backup_id,
                format=link.format,
                taken_at=link.taken_at,
                size=link.total_size,
                manifest_sha256=link.stored_sha256,
            )
            for link in plan.chain
        ),
        window=_window(drill.window),
        target=drill.target,
        notes=plan.notes,
        disk_needed=account.disk_needed,
        copy_=account.copy,
        phases=account.phases,
        recovery_seconds=account.recovery_seconds,
        rto_seconds=rto_seconds,
        rto_objective_seconds=objectives.rto.total_seconds(),
        rpo_seconds=drill.rpo_seconds,
        rpo_objective_seconds=objectives.rpo.total_seconds(),
        checks=checks,
    )


def _all_checks(account: Account, rto_seconds: float, rpo_seconds: float, objectives: Objectives) -> tuple[Check, ...]:
    unasked = "The recovery failed, so there was no copy to check."
    asked = [
        account.checks.get(name, Check(name=name, outcome="not run", detail=unasked)) for name in ("recovery", *_ASKED)
    ]
    own = [account.checks["own_checks"]] if "own_checks" in account.checks else []
    recovered = account.checks["recovery"].outcome == "passed"
    return (
        *asked,
        *own,
        _objective("rto", rto_seconds, objectives.rto, "Recovered and verified in", known=recovered),
        _objective("rpo", rpo_seconds, objectives.rpo, "The newest recovery point was", old=True),
    )


def _window(window: RecoveryWindow) -> Window:
    return Window(
        earliest_at=window.earliest_at,
        newest_at=window.newest_at,
        newest_lsn=format_lsn(window.newest_lsn),
        bases=tuple(
            WindowBase(backup_id=item.backup_id, format=item.format, taken_at=item.taken_at) for item in window.bases
        ),
    )


def verification_of(account: Account, drill: DrillPlan, evidence: Evidence) -> Verification | None:
    """The verification record for the backup: verified or failed. None when something other than the backup failed."""
    reasons: tuple[str, ...] = ()
    if evidence.sound:
        backup_id = drill.recovery.base.backup_id
    elif account.unusable is not None:
        backup_id, reasons = account.unusable.backup_id, (account.unusable.message,)
    else:
        return None
    link = next(link for link in drill.recovery.chain if link.backup_id == backup_id)
    rows = evidence.copy_.rows if evidence.copy_ else {}
    return Verification(
        backup_id=backup_id,
        outcome="failed" if reasons else "proven",
        verified_at=evidence.finished_at,
        reasons=reasons,
        phases=evidence.phases,
        restore_seconds=evidence.recovery_seconds,
        tables=len(rows),
        rows=sum(rows.values()),
        server_version=drill.programs.version,
        tmi_ops_version=__version__,
        manifest_sha256=link.stored_sha256,
    )


def _objective(
    name: CheckName, measured: float, objective: timedelta, words: str, *, old: bool = False, known: bool = True
) -> Check:
    if not known:
        return Check(name=name, outcome="failed", detail="The recovery failed, so there is no time to measure.")
    met = measured <= objective.total_seconds()
    wanted = format_duration(objective.total_seconds())
    detail = f"{words} {format_duration(measured)}{' old' if old else ''}; the objective is {wanted}."
    return Check(name=name, outcome="passed" if met else "failed", detail=detail)
