"""Plans a drill: chooses the target and the backups to recover from. Nothing is restored yet."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tmi_ops.drill.evidence import DrillTarget
from tmi_ops.drill.window import RecoveryWindow, random_target, recovery_window
from tmi_ops.postgres.programs import Programs, server_programs
from tmi_ops.postgres.wal_files import format_lsn
from tmi_ops.progress import Report
from tmi_ops.recovery.point_in_time.clock import with_times
from tmi_ops.recovery.point_in_time.facts import RecoveryFacts, read_facts
from tmi_ops.recovery.point_in_time.planning import RecoveryPlan, plan_recovery
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.recovery.server_wal_end import read_server_wal_end
from tmi_ops.recovery.wal_end import KnownWalEnd, read_receiver_wal_end
from tmi_ops.settings import Settings
from tmi_ops.store.objects import ObjectStore

LARGEST_SEED = 1 << 32


@dataclass(frozen=True)
class DrillFacts:
    """What the store and, if it could be read, the live server say. `recovery` has the newest timeline's clock."""

    recovery: RecoveryFacts
    witnesses: tuple[KnownWalEnd, ...]
    read_at: datetime
    programs: Programs


@dataclass(frozen=True)
class DrillPlan:
    """What a drill will do.

    Args:
        rpo_seconds: from the newest recovery point until the store was read.
        planning_seconds: how long planning took; it counts towards the recovery time.
    """

    recovery: RecoveryPlan
    target: DrillTarget
    window: RecoveryWindow
    rpo_seconds: float
    programs: Programs
    planning_seconds: float = 0.0


def prepare_drill(
    settings: Settings, store: ObjectStore, report: Report, *, target: Target | None = None, seed: int | None = None
) -> DrillPlan:
    """Read the store, choose the target and plan the recovery.

    Args:
        target: None for a random time inside the recovery window.
        seed: selects the same time in the same window again; None for a new one each time.

    Raises:
        RecoveryError: there is no base backup, or the target cannot be reached; the message says what can.
        ProgramError: PostgreSQL programs of the source's version are missing.
        StoreError: the store failed.
    """
    begun = time.monotonic()
    scratch = settings.home / "scratch"
    facts = read_drill_facts(settings, store, scratch, report)
    if target is None and seed is None:
        seed = secrets.randbelow(LARGEST_SEED)
    wanted, drill_target = choose_target(facts, target, seed)
    recovery = with_times(store, facts.recovery, wanted, facts.programs, scratch, report)
    return plan_drill(facts, recovery, wanted, drill_target, time.monotonic() - begun)


def read_drill_facts(settings: Settings, store: ObjectStore, scratch: Path, report: Report) -> DrillFacts:
    """Read everything the plan needs. The live server is read before the archive: if the archive reaches the LSN read
    here, it was complete at that moment.

    Raises:
        OpsError: as `prepare_drill`.
    """
    server = read_server_wal_end(settings.postgres, report)
    facts = read_facts(store)
    receiver = read_receiver_wal_end(store, facts.system_identifier)
    programs = server_programs(facts.server_major, settings.pg_bindir, settings.copy_libraries)
    now = datetime.now(UTC)
    witnesses = tuple(witness for witness in (server, receiver) if witness is not None)
    return DrillFacts(with_times(store, facts, Target(time=now), programs, scratch, report), witnesses, now, programs)


def choose_target(facts: DrillFacts, target: Target | None, seed: int | None) -> tuple[Target, DrillTarget]:
    """The requested target, or a random one. Pure.

    Raises:
        RecoveryError: no base backup can be used.
    """
    wanted = target
    if wanted is None:
        clock = facts.recovery.clock
        window = recovery_window(facts.recovery, facts.witnesses)
        wanted = random_target(window, clock.newest_commit if clock else None, seed or 0)
    return wanted, DrillTarget(
        text=wanted.describe(),
        kind=wanted.kind,
        chosen="at random" if target is None else "asked for",
        time=wanted.time,
        lsn=None if wanted.lsn is None else format_lsn(wanted.lsn),
        name=wanted.name,
        seed=seed if target is None else None,
    )


def plan_drill(
    facts: DrillFacts, recovery: RecoveryFacts, wanted: Target, target: DrillTarget, planning_seconds: float = 0.0
) -> DrillPlan:
    """Plan how to reach the target. Pure.

    Args:
        recovery: the facts, including the times needed to judge the target.

    Raises:
        RecoveryError: the target cannot be reached; the message says which targets can.
    """
    plan = plan_recovery(recovery, wanted)
    window = recovery_window(facts.recovery, facts.witnesses)
    return DrillPlan(
        recovery=plan,
        target=target,
        window=window,
        rpo_seconds=max(0.0, (facts.read_at - window.newest_at).total_seconds()),
        programs=facts.programs,
        planning_seconds=planning_seconds,
    )
