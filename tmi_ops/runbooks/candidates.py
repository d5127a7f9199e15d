"""The search for the last good moment: which candidate to restore next. Each trial is a restore, so use few. Pure.

1. The end of the WAL, from the newest base backups. WAL does not contain disk damage: a base backup from before the
   damage plus all WAL since loses nothing. If WAL is missing, go up to the gap.
2. The ends of the base backups, newest first: the first sound one is a good moment.
3. From that base backup: the end of the WAL again, then bisect between the last good and the first bad LSN until they
   are close.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tmi_ops.runbooks.plan import Fact

Outcome = Literal["sound", "unsound", "unreachable"]
BASES_AT_THE_END = 3
# Less than a segment of WAL is not worth another restore.
SMALLEST_STEP = 16 << 20


class Candidate(Fact):
    """A base backup and the LSN to recover to; None: the end of the WAL."""

    base: str
    lsn: int | None = None


class Trial(Fact):
    """A candidate that was tried. `why`: why it is unsound or unreachable."""

    candidate: Candidate
    outcome: Outcome
    why: str = ""


class BaseEnd(Fact):
    """A base backup and the LSN at which it ended."""

    base: str
    lsn: int


def next_candidate(bases: Sequence[BaseEnd], end: int, trials: Sequence[Trial], limit: int) -> Candidate | None:
    """What to restore next; None if nothing more is worth a restore, or the limit is reached.

    Args:
        bases: the usable ones, newest first.
        end: where the WAL ends or its first gap begins.
        limit: how many restores are allowed.
    """
    tried = {trial.candidate for trial in trials}
    best = best_of(trials)
    restored = sum(trial.outcome != "unreachable" for trial in trials)
    if restored >= limit or (best is not None and best.lsn is None):
        return None
    at_the_end = [Candidate(base=item.base) for item in bases[:BASES_AT_THE_END]]
    themselves = [Candidate(base=item.base, lsn=item.lsn) for item in bases]
    if best is None:
        newest = at_the_end[:1]
        cut_off = [Candidate(base=one.base, lsn=end) for one in newest if _outcome(trials, one) == "unreachable"]
        return next((one for one in (*cut_off, *at_the_end, *themselves) if one not in tried), None)
    whole, up_to_the_hole = Candidate(base=best.base), Candidate(base=best.base, lsn=end)
    if whole not in tried:
        return whole
    if up_to_the_hole not in tried and _outcome(trials, whole) == "unreachable":
        return up_to_the_hole
    return _between(best, end, trials)


def best_of(trials: Sequence[Trial]) -> Candidate | None:
    """The sound candidate that loses least; None if none was sound."""
    sound = [trial.candidate for trial in trials if trial.outcome == "sound"]
    return max(sound, key=lambda one: float("inf") if one.lsn is None else one.lsn, default=None)


def _outcome(trials: Sequence[Trial], candidate: Candidate) -> Outcome | None:
    return next((trial.outcome for trial in trials if trial.candidate == candidate), None)


def _between(best: Candidate, end: int, trials: Sequence[Trial]) -> Candidate | None:
    if best.lsn is None:
        return None
    bad = [trial.candidate.lsn or end for trial in trials if trial.outcome == "unsound"]
    first_bad = min((lsn for lsn in bad if lsn > best.lsn), default=end)
    if first_bad - best.lsn <= SMALLEST_STEP:
        return None
    return Candidate(base=best.base, lsn=best.lsn + (first_bad - best.lsn) // 2)
