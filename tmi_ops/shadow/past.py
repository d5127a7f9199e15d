"""Provides a past database from a shadow: a copy of its files, replayed to a target.

Only the WAL in between is fetched. With `--delay`, an accident is still ahead of the shadow when it is noticed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.programs import server_programs
from tmi_ops.postgres.wal_files import parse_lsn
from tmi_ops.progress import Report
from tmi_ops.recovery.point_in_time.confirmed import confirmed_plan
from tmi_ops.recovery.point_in_time.facts import RecoveryFacts, read_facts
from tmi_ops.recovery.point_in_time.planning import bases_on, choose_line
from tmi_ops.recovery.point_in_time.server import owner_of
from tmi_ops.recovery.point_in_time.target import Target, format_time
from tmi_ops.rescue.past import Moment, Past, past_database
from tmi_ops.rescue.travel.replaying import standing_at
from tmi_ops.settings import Settings
from tmi_ops.shadow.files import copy_files
from tmi_ops.shadow.place import ask, destination_in, is_running, only_one, read_local
from tmi_ops.shadow.server import begins_at
from tmi_ops.shadow.takeover import require_shadow
from tmi_ops.store.objects import ObjectStore

COPIED_WITHIN_S = 3600.0


@contextmanager
def past_of(settings: Settings, store: ObjectStore, moment: Moment, report: Report) -> Iterator[Past]:
    """A past database for the length of a `with` block, from the shadow if the moment says so.

    Raises:
        OpsError: as `past_database`.
        RecoveryError: there is no shadow, or it has already replayed past the target.
    """
    if not moment.shadow:
        with past_database(settings, store, moment, report) as past:
            yield past
        return
    require_shadow(settings)
    scratch = settings.home / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="past-", dir=scratch) as name:
        directory = Path(name)
        directory.chmod(0o755)
        with _replayed(settings, store, moment, directory, report) as past:
            yield past


@contextmanager
def _replayed(
    settings: Settings, store: ObjectStore, moment: Moment, directory: Path, report: Report
) -> Iterator[Past]:
    seed = require_shadow(settings)
    stands_at = _require_ahead(settings, moment.target)
    with report.phase("copy the shadow", total=1, unit="steps") as phase:
        if is_running(settings):
            ask(settings, "copy", directory, COPIED_WITHIN_S)
        else:
            with only_one(settings):
                copy_files(settings, str(directory))
        phase.advance(1)
    destination = destination_in(directory)
    programs = server_programs(seed.major, settings.pg_bindir, settings.copy_libraries)
    identity = owner_of(destination.directory, programs, together=True)
    (destination.directory / "standby.signal").unlink(missing_ok=True)
    signal = destination.directory / "recovery.signal"
    signal.touch(mode=0o600)
    identity.take_over(signal)
    redo, replayed = begins_at(programs, destination.directory)
    target = moment.target or Target(lsn=replayed, inclusive=False)
    if target.lsn is not None and target.lsn < replayed:
        raise _replayed_already(target)
    facts = read_facts(store, seed.system_identifier)
    base = _base_before(facts, redo, seed.backup_id)
    plan = confirmed_plan(store, facts, target, programs, directory, report, base=base)
    with standing_at(plan, store, destination, programs, identity, report, finish="promote") as standing:
        address = standing.address.model_copy(update={"database": settings.postgres.database})
        words = target.describe() if moment.target is not None else f"the shadow as it stands{stands_at}"
        yield Past(address, words)


def _require_ahead(settings: Settings, target: Target | None) -> str:
    """Refuse a time that the shadow has already passed, if its position is known; returns that position for display."""
    local = read_local(settings)
    if local is None or local.report.commit_at is None:
        return ""
    stands_at = local.report.commit_at
    if target is not None and target.time is not None and target.time < stands_at:
        raise _replayed_already(target)
    return f" ({format_time(stands_at)})"


def _base_before(facts: RecoveryFacts, redo: int, wanted: str) -> str:
    """A base backup before the shadow's position: the shadow's own, if it still exists."""
    before = [base for base in bases_on(facts, choose_line(facts, None)) if parse_lsn(base.stop_lsn) <= redo]
    own = [base for base in facts.bases if base.backup_id == wanted]
    if not (own or before):
        raise RecoveryError(
            "The shadow's base backup is gone from the store, and there is none before the shadow's position.",
            hint="leave out --from-shadow",
            code=Code.NO_BASE_BACKUP,
        )
    return (own or before)[0].backup_id


def _replayed_already(target: Target) -> RecoveryError:
    return RecoveryError(
        f"The shadow has already replayed past {target.describe()}.",
        hint="leave out --from-shadow; a shadow that runs with --delay 1h stays an hour behind",
        code=Code.TARGET_TOO_EARLY,
    )
