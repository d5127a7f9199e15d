"""Holds the base backups of a recovery, so that none is pruned during it, or before someone has checked the result."""

from __future__ import annotations

from tmi_ops.errors import ObjectExistsError
from tmi_ops.retention.holds import hold_backup, read_hold, release_backup
from tmi_ops.runbooks.execution import Action, Work
from tmi_ops.runbooks.plan import Fact, Step

STEP = Step(
    name="hold",
    does="hold the base backups, so that none is pruned meanwhile",
    way_back="release them",
)

RELEASE = "When you have checked the result, release the base backups: `tmi-ops release`; see `tmi-ops holds`."


class Held(Fact):
    """The base backups that the run may restore."""

    bases: tuple[str, ...]


def _hold(work: Work) -> None:
    reason = f"used by the recovery {work.journal.run_id}"
    for backup_id in _held(work):
        try:
            hold_backup(work.store, backup_id, reason)
        except ObjectExistsError:
            continue
    work.say(f"Base backups held: {len(_held(work))}. `tmi-ops holds` lists them.")


def _held(work: Work) -> tuple[str, ...]:
    return Held.model_validate(work.journal.plan.requests["held"]).bases


def _release(work: Work) -> None:
    for backup_id in _held(work):
        held = read_hold(work.store, backup_id)
        if held is not None and work.journal.run_id in held.reason:
            release_backup(work.store, backup_id)


HOLD = Action(_hold, _release)
