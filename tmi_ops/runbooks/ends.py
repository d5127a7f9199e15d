"""Where base backups and the archived WAL of a cluster end, for the search in candidates.py. Pure."""

from __future__ import annotations

from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.wal_files import format_lsn, parse_lsn
from tmi_ops.recovery.point_in_time.facts import RecoveryFacts
from tmi_ops.recovery.point_in_time.planning import bases_on, choose_line, why_unusable
from tmi_ops.recovery.point_in_time.wal_range import wal_after
from tmi_ops.runbooks.candidates import BaseEnd
from tmi_ops.wal.coverage import WalRange


def base_ends(facts: RecoveryFacts, wanted: str | None = None) -> tuple[BaseEnd, ...]:
    """The usable base backups of the newest timeline, newest first; only `wanted` if it is given."""
    bases = [base for base in bases_on(facts, choose_line(facts, None)) if why_unusable(facts, base) is None]
    return tuple(
        BaseEnd(base=base.backup_id, lsn=parse_lsn(base.stop_lsn))
        for base in bases
        if wanted is None or base.backup_id.startswith(wanted)
    )


def end_of_wal(facts: RecoveryFacts) -> int:
    """Where the archived WAL that follows the newest base backup without a gap ends.

    Raises:
        RecoveryError: no base backup is usable.
    """
    return wal_of_newest(facts).end


def wal_of_newest(facts: RecoveryFacts) -> WalRange:
    """The archived WAL that follows the newest base backup without a gap.

    Raises:
        RecoveryError: no base backup is usable.
    """
    line, ends = choose_line(facts, None), base_ends(facts)
    if not ends:
        raise RecoveryError(
            "No base backup of the newest timeline is usable.",
            hint="see why: `tmi-ops backups`; or restore a logical backup: `tmi-ops restore --backup ID --into NAME`",
            code=Code.BASE_UNUSABLE,
        )
    base = next(base for base in facts.bases if base.backup_id == ends[0].base)
    return wal_after(base, line, facts.archive)


def gap_notes(facts: RecoveryFacts) -> tuple[str, ...]:
    """Notes on a gap in the WAL after the newest base backup.

    Raises:
        RecoveryError: no base backup is usable.
    """
    wal = wal_of_newest(facts)
    if not wal.goes_on:
        return ()
    return (
        f"The archived WAL has a gap: {gap_text(wal)} Later commits cannot be recovered unless you first archive "
        "the missing segment from wherever it still exists (`tmi-ops wal push`). `tmi-ops wal gaps` lists all gaps.",
    )


def gap_text(wal: WalRange) -> str:
    return f"{wal.why_it_ends()} WAL can be replayed only up to LSN {format_lsn(wal.end)}."
