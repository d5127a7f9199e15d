"""The search for the last good moment, without restoring anything: the store is a number line with damage on it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tmi_ops.runbooks.candidates import (
    BASES_AT_THE_END,
    SMALLEST_STEP,
    BaseEnd,
    Candidate,
    Outcome,
    Trial,
    best_of,
    next_candidate,
)

MEGABYTE = 1 << 20
MANY = 64


def search(
    bases: list[BaseEnd], end: int, asked: dict[Candidate, Outcome] | None, damage: int | None, limit: int
) -> list[Trial]:
    """`damage`: from this LSN on everything is bad, whatever it was recovered from; None: nothing is."""
    trials: list[Trial] = []
    while (candidate := next_candidate(bases, end, trials, limit)) is not None:
        ends_at = end if candidate.lsn is None else candidate.lsn
        sound: Outcome = "unsound" if damage is not None and ends_at >= damage else "sound"
        trials.append(Trial(candidate=candidate, outcome=(asked or {}).get(candidate, sound)))
    return trials


def ends(*lsns: int) -> list[BaseEnd]:
    """The newest first."""
    return [BaseEnd(base=f"base-{lsn}", lsn=lsn) for lsn in sorted(lsns, reverse=True)]


def test_where_nothing_speaks_against_the_end_of_the_wal_one_restore_is_enough() -> None:
    trials = search(ends(100, 200), 300, None, None, MANY)
    assert [trial.candidate for trial in trials] == [Candidate(base="base-200")]


def test_damage_in_the_newest_base_alone_costs_one_more_restore_and_no_data() -> None:
    trials = search(ends(100, 200), 300, {Candidate(base="base-200"): "unsound"}, None, MANY)
    assert best_of(trials) == Candidate(base="base-100")
    assert len(trials) == 2


def test_wal_with_a_hole_is_followed_up_to_the_hole() -> None:
    out_of_reach: dict[Candidate, Outcome] = {Candidate(base=f"base-{lsn}"): "unreachable" for lsn in (100, 200)}
    trials = search(ends(100, 200), 300, out_of_reach, None, MANY)
    assert best_of(trials) == Candidate(base="base-200", lsn=300)
    assert sum(trial.outcome != "unreachable" for trial in trials) == 1


def test_nothing_sound_is_nothing_found_and_every_base_was_asked() -> None:
    trials = search(ends(100, 200), 300, None, 50, MANY)
    assert best_of(trials) is None
    assert {trial.candidate.lsn for trial in trials} == {None, 100, 200}


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=12, unique=True), st.integers(0, 2000), st.integers(1, 8000))
def test_the_moment_found_is_sound_and_as_late_as_a_segment_allows(places: list[int], more: int, damaged: int) -> None:
    bases, damage = ends(*(place * MEGABYTE for place in places)), damaged * MEGABYTE
    end = (max(places) + more) * MEGABYTE
    trials = search(bases, end, None, damage, MANY)
    best = best_of(trials)
    if damage > end:
        assert best is not None
        assert best.lsn is None
    elif min(base.lsn for base in bases) >= damage:
        assert best is None
    else:
        assert best is not None
        assert best.lsn is not None
        assert damage - SMALLEST_STEP <= best.lsn < damage
    assert len({trial.candidate for trial in trials}) == len(trials), "nothing is restored twice"


@given(st.integers(1, 12))
def test_the_limit_of_restores_is_kept(limit: int) -> None:
    assert len(search(ends(10, 20, 30), 1 << 40, None, 25, limit)) <= limit
    assert BASES_AT_THE_END < MANY
