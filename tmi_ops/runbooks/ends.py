"""Where base backups and the archived WAL of a cluster end, for the search of candidates.py. Pure."""

from __future__ import annotations

from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.wal_files import format_lsn, parse_lsn
from tmi_ops.recovery.point_in_time.facts import RecoveryFacts
from tmi_ops.recovery.point_in_time.planning import bases_on, choose_line, why_unusable
from tmi_ops.recovery.point_in_time.wal_range import wal_after
from tmi_ops.runbooks.candidates import BaseEnd
from tmi_ops.wal.coverage import WalRange


def base_ends(facts: RecoveryFacts, wanted: str | None = None) -> tuple[BaseEnd, ...]:
    """The bases of the newest timeline that can be used, the newest first; of `wanted` alone where it is given."""
    bases = [base for base in bases_on(facts, choose_line(facts, None)) if why_unusable(facts, base) is None]
    return tuple(
        BaseEnd(base=base.backup_id, lsn=parse_lsn(base.stop_lsn))
        for base in bases
        if wanted is None or base.backup_id.startswith(wanted)
    )


def end_of_wal(facts: RecoveryFacts) -> int:
    """Where the archived WAL ends that follows the newest base backup without a hole.

    Raises:
        RecoveryError: no base backup can be used.
    """
    return wal_of_newest(facts).end


def wal_of_newest(facts: RecoveryFacts) -> WalRange:
    """The archived WAL that follows the newest base backup without a hole.

    Raises:
        RecoveryError: no base backup can be used.
    """
    line, ends = choose_line(facts, None), base_ends(facts)
    if not ends:
        raise RecoveryError(
            "No base backup of the newest timeline can be used.",
            hint="see why: `tmi-ops backups`; a logical backup may do: `tmi-ops restore --backup ID --into NAME`",
        )
    base = next(base for base in facts.bases if base.backup_id == ends[0].base)
    return wal_after(base, line, facts.archive)


def hole_notes(facts: RecoveryFacts) -> tuple[str, ...]:
    """What a person should know of a hole in the WAL after the newest base backup, a sentence each.

    Raises:
        RecoveryError: no base backup can be used.
    """
    wal = wal_of_newest(facts)
    if not wal.goes_on:
        return ()
    return (
        f"The archived WAL cannot be followed to its end: {hole_words(wal)} What was committed after that cannot be "
        "recovered, unless a missing segment is brought back first from wherever it still is (`tmi-ops wal push`). "
        "`tmi-ops wal gaps` shows all holes.",
    )


def hole_words(wal: WalRange) -> str:
    return f"{wal.why_it_ends()} It can be followed up to LSN {format_lsn(wal.end)} only."
