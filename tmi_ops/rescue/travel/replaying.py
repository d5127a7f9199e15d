"""A server that replays to a moment and waits there, on files that may already be replayed to an earlier one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.programs import Programs, run_program
from tmi_ops.postgres.unprivileged import ServerIdentity
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.progress import Report
from tmi_ops.recovery.point_in_time.destination import Destination
from tmi_ops.recovery.point_in_time.planning import RecoveryPlan
from tmi_ops.recovery.point_in_time.replay import Reached, ReplayAgainError, follow, promote, replay_settings
from tmi_ops.recovery.point_in_time.server import recovering_server
from tmi_ops.recovery.point_in_time.spool import WalSpool
from tmi_ops.settings import PostgresSettings
from tmi_ops.store.objects import ObjectStore

STARTS = 5
_REDO = "Latest checkpoint's REDO location"


@dataclass(frozen=True)
class Standing:
    """A server that waits at a moment, and the position it reached."""

    address: PostgresSettings
    reached: Reached


@contextmanager
def standing_at(
    plan: RecoveryPlan,
    store: ObjectStore,
    destination: Destination,
    programs: Programs,
    identity: ServerIdentity,
    report: Report,
    *,
    finish: Literal["promote", "pause"] = "pause",
) -> Iterator[Standing]:
    """Replay, and wait for the length of a `with` block; the files stay and can be replayed further.

    Args:
        finish: `promote` promotes it, for callers that need to write; it cannot be replayed further then.

    Raises:
        RecoveryError: the moment was not reached, or is earlier than what is already replayed.
    """
    plan = _from_where_it_stands(plan, destination, programs)
    higher: dict[str, str] = {}
    destination.work.mkdir(mode=0o700, exist_ok=True)
    identity.take_over(destination.work)
    base = plan.base
    for _ in range(STARTS):
        spooled = destination.work / "wal"
        with WalSpool(store, base.system_identifier, plan.wal.files, plan.histories, spooled, identity) as spool:
            spool.to_the_end = False
            parameters = {"restore_command": spool.restore_command, **replay_settings(plan, to_the_end=False), **higher}
            role, superuser = base.superuser or base.role, base.superuser is not None
            with recovering_server(
                programs, destination, identity, role, parameters, superuser=superuser
            ) as recovering:
                try:
                    reached = follow(recovering, spool, plan, report, to_the_end=False)
                except ReplayAgainError as again:
                    if not again.settings:
                        raise _beyond(plan) from None
                    higher |= again.settings
                    continue
                if finish == "promote":
                    promote(recovering, programs, identity)
                yield Standing(recovering.cluster.address, reached)
                return
    raise RecoveryError(
        f"The replay did not finish after {STARTS} starts of the server; it last needed the settings {higher}."
    )


def require_stopping_place(plan: RecoveryPlan) -> None:
    """Raises:
    RecoveryError: a server cannot wait at the end of the archive.
    """
    if plan.to_the_end:
        raise _beyond(plan)


def _from_where_it_stands(plan: RecoveryPlan, destination: Destination, programs: Programs) -> RecoveryPlan:
    """The server needs WAL only from its last restartpoint on, so earlier files need not be fetched again."""
    said = run_program([programs.path("pg_controldata"), destination.directory])
    found = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    redo = parse_lsn(found[_REDO].strip()) if _REDO in found else 0
    files = tuple(file for file in plan.wal.files if file.segment.end > redo)
    return replace(plan, wal=replace(plan.wal, files=files)) if files else plan


def _beyond(plan: RecoveryPlan) -> RecoveryError:
    return RecoveryError(
        f"No commit after {plan.target.describe()} is archived yet, so replay cannot stop there.",
        hint="choose an earlier moment, or archive the latest WAL: `tmi-ops wal stream --catch-up`",
    )
