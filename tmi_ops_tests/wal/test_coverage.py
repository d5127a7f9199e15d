"""What is derived of an archive agrees with what is in it, byte range by byte range."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tmi_ops.postgres.wal_files import PARTIAL_SUFFIX, TimelineSwitch, segment_at
from tmi_ops.wal.archive import ArchivedPartial, WalArchive
from tmi_ops.wal.breaks import Break
from tmi_ops.wal.coverage import Coverage, coverage
from tmi_ops.wal.lineage import Lineage, lineage
from tmi_ops.wal.runs import ArchivedSegment

SIZE = 1 << 20
# The finest place that a test speaks of: a quarter of a segment.
STEP = SIZE // 4
FIRST = 10 * SIZE
STEPS = 40
PLACES = range(FIRST, FIRST + STEPS * STEP, STEP)


@dataclass(frozen=True)
class Stored:
    """One file of a generated archive: `timeline`, its segment's number from the first on, steps that are valid."""

    timeline: int
    number: int
    steps: int


def archive_with(*files: Stored, breaks: tuple[Break, ...] = ()) -> WalArchive:
    segments: dict[int, list[ArchivedSegment]] = {}
    partials: dict[int, list[ArchivedPartial]] = {}
    for file in sorted(files, key=lambda file: (file.timeline, file.number)):
        segment = segment_at(file.timeline, FIRST + file.number * SIZE, SIZE)
        if file.steps == 4:
            segments.setdefault(file.timeline, []).append(ArchivedSegment(segment, 1))
        else:
            partial = ArchivedPartial(segment, 1, segment.start + file.steps * STEP)
            partials.setdefault(file.timeline, []).append(partial)
    return WalArchive(
        system_identifier="1",
        segment_size=SIZE,
        segments={timeline: tuple(group) for timeline, group in segments.items()},
        partials={timeline: tuple(group) for timeline, group in partials.items()},
        histories=(),
        breaks=breaks,
    )


def line_with(*forks: int) -> Lineage:
    """Timelines 1, 2, ... each left at one of these places."""
    switches = tuple(TimelineSwitch(number, lsn, "") for number, lsn in enumerate(forks, start=1))
    return lineage(len(forks) + 1, switches)


@st.composite
def archives(draw: st.DrawFn) -> tuple[WalArchive, Lineage]:
    """Forks within segments and between them, holes, partials, abandoned WAL, children without WAL, and breaks."""
    forks = sorted(draw(st.sets(st.sampled_from(PLACES[1:]), max_size=3)))
    line = line_with(*forks)
    files = {}
    for stretch in line.stretches:
        for number in range(STEPS // 4):
            segment = segment_at(stretch.timeline, FIRST + number * SIZE, SIZE)
            steps = draw(st.sampled_from([0, 4, 4, 4, 4, 1, 2, 3]))
            begins_here = segment.start <= stretch.start < segment.end
            # A timeline's first segment begins with a copy of its parent's: it reaches to the fork at the least.
            if begins_here and steps and segment.start + steps * STEP < stretch.start:
                steps = 4
            if steps and (segment.end > stretch.start or begins_here):
                files[stretch.timeline, number] = Stored(stretch.timeline, number, steps)
    breaks = draw(
        st.lists(st.builds(Break, st.integers(1, 4), st.sampled_from(PLACES), st.just("minimal")), max_size=2)
    )
    return archive_with(*files.values(), breaks=tuple(breaks)), line


def holds(archive: WalArchive, line: Lineage, place: int) -> bool:
    """Whether the step from `place` on is archived in a file that recovery along the line may read."""
    for stretch in line.stretches:
        segment = segment_at(stretch.timeline, place, SIZE)
        if segment.end <= stretch.start or (stretch.end is not None and place >= stretch.end):
            continue
        if any(item.segment == segment for item in archive.segments.get(stretch.timeline, ())):
            return True
        for partial in archive.partials.get(stretch.timeline, ()):
            if partial.segment == segment and partial.end_lsn > place:
                return True
    return False


def breaks_on(archive: WalArchive, line: Lineage) -> set[int]:
    return {
        item.lsn
        for item in archive.breaks
        for stretch in line.stretches
        if item.timeline == stretch.timeline
        and stretch.start < item.lsn
        and (stretch.end is None or item.lsn <= stretch.end)
    }


@given(archives(), st.sampled_from(PLACES))
@settings(max_examples=400, deadline=None)
def test_every_derived_answer_agrees_with_what_is_archived(made: tuple[WalArchive, Lineage], begin: int) -> None:
    archive, line = made
    found = coverage(archive, line)
    held = {place for place in PLACES if holds(archive, line, place)}
    breaks = breaks_on(archive, line)

    assert found.end == (max(held) + STEP if held else None)

    reached = begin
    while reached in held and (reached == begin or reached not in breaks):
        reached += STEP
    assert found.reach(begin) == reached

    known = max([*(place + STEP for place in held), line.stretches[-1].start])
    absent = {place for place in PLACES if begin <= place < known and place not in held}
    named = {place for hole in found.holes(begin) for place in range(hole.start, hole.end, STEP)}
    assert named == absent

    first_absent = next(place for place in range(begin, FIRST + 2 * STEPS * STEP, STEP) if place not in held)
    assert found.first_missing(begin) == segment_at(line.timeline_at(first_absent), first_absent, SIZE)
    assert found.place_to_resume(begin).start <= found.first_missing(begin).start

    wal = found.range_from(FIRST, begin)
    assert wal.end == reached
    assert (wal.broken is not None) == (reached in breaks and reached != begin)
    assert wal.goes_on == (reached < known or wal.broken is not None)
    assert found.goes_on_behind(begin) == wal.goes_on
    assert found.leads_to_the_end(begin) == (reached >= known)
    for place in range(begin, reached, STEP):
        assert any(_holds(archive, item.stored, place) for item in wal.files)
    assert [item.segment.start for item in wal.files] == sorted({item.segment.start for item in wal.files})


def _holds(archive: WalArchive, stored: str, place: int) -> bool:
    timeline = int(stored[:8], 16)
    if stored.endswith(PARTIAL_SUFFIX):
        return any(
            item.name == stored and item.segment.start <= place < item.end_lsn for item in archive.partials[timeline]
        )
    return any(
        item.name == stored and item.segment.start <= place < item.segment.end for item in archive.segments[timeline]
    )


def whole(timeline: int, *numbers: int) -> list[Stored]:
    return [Stored(timeline, number, 4) for number in numbers]


def _of(*files: Stored, forks: tuple[int, ...] = (), breaks: tuple[Break, ...] = ()) -> Coverage:
    return coverage(archive_with(*files, breaks=breaks), line_with(*forks))


def at(number: float) -> int:
    """The LSN of a segment's beginning, by its number."""
    return FIRST + int(number * SIZE)


def test_receiving_goes_on_where_the_slot_and_the_archive_both_end() -> None:
    found = _of(*whole(1, 0, 1, 2))
    assert found.place_to_resume(at(3)).start == at(3)
    assert found.place_to_resume(at(3.5)).start == at(3)  # the slot is ahead: it is not believed
    assert found.place_to_resume(at(1)).start == at(3)  # the slot is behind: what is archived is not asked for again


def test_below_the_slot_the_archive_is_trusted_and_above_it_a_hole_is_filled() -> None:
    found = _of(*whole(1, 0, 2, 3, 5))
    assert found.place_to_resume(at(2)).start == at(4)
    assert found.place_to_resume(at(1)).start == at(1)


def test_an_empty_archive_is_begun_where_the_slot_begins() -> None:
    assert _of().place_to_resume(at(4.25)).start == at(4)
    assert _of().end is None
    assert _of().holes(at(1)) == ()


def test_the_open_segment_is_received_again_from_its_beginning() -> None:
    assert _of(*whole(1, 0), Stored(1, 1, 2)).place_to_resume(at(1.5)).start == at(1)


def test_a_timeline_that_was_left_is_complete_where_it_was_left() -> None:
    left = at(1.5)
    found = _of(*whole(1, 0), Stored(1, 1, 2), forks=(left,))
    assert found.place_to_resume(at(1)) == segment_at(2, at(1), SIZE)
    assert found.holes(at(0)) == ()
    assert found.leads_to_the_end(at(0))


def test_what_a_timeline_holds_beyond_a_fork_does_not_count() -> None:
    found = _of(*whole(1, 0, 1, 2, 3), *whole(2, 1), forks=(at(1.5),))
    assert found.end == at(2)
    assert [item.stored for item in found.files] == [
        segment_at(1, at(0), SIZE).name,
        segment_at(2, at(1), SIZE).name,
    ]


def test_a_parents_last_segment_is_cut_where_the_line_left_it() -> None:
    (file,) = _of(*whole(1, 1, 2), forks=(at(1.25),)).files
    assert file.cut == at(1.25)


def test_a_hole_is_named_with_its_segments_and_ends_a_range() -> None:
    found = _of(*whole(1, 0, 1, 4))
    (hole,) = found.holes(at(0))
    assert (hole.start, hole.end, hole.segments) == (at(2), at(4), 2)
    wal = found.range_from(at(0), at(0))
    assert wal.missing == segment_at(1, at(2), SIZE)
    assert wal.end == at(2)
    assert "missing from the archive" in wal.why_it_ends()
    assert found.range_from(at(0), at(4)).missing is None


def test_a_hole_over_a_fork_is_named_on_both_timelines() -> None:
    found = _of(*whole(1, 0), *whole(2, 3), forks=(at(2),))
    assert [(hole.timeline, hole.start, hole.end) for hole in found.holes(at(0))] == [
        (1, at(1), at(2)),
        (2, at(2), at(3)),
    ]


def test_a_break_ends_what_can_be_replayed_and_not_what_is_archived() -> None:
    found = _of(*whole(1, 0, 1, 2), breaks=(Break(1, at(1.25), "minimal"),))
    assert found.reach(at(0)) == at(1.25)
    assert found.reach(at(1.5)) == at(3)
    assert found.holes(at(0)) == ()
    assert found.place_to_resume(at(0)).start == at(3)
    wal = found.range_from(at(0), at(0))
    assert wal.broken is not None
    assert wal.goes_on
    assert "wal_level = minimal" in wal.why_it_ends()


def test_a_break_between_two_segments_keeps_the_later_one_out_of_the_range() -> None:
    found = _of(*whole(1, 0, 1, 2), breaks=(Break(1, at(2), "unlinked"),))
    assert [item.segment.start for item in found.range_from(at(0), at(0)).files] == [at(0), at(1)]


@pytest.mark.parametrize("lsn", [at(1.5), at(2)])
def test_a_break_of_another_history_does_not_count(lsn: int) -> None:
    found = _of(*whole(1, 0, 1, 2), *whole(2, 1, 2, 3), forks=(at(1.25),), breaks=(Break(1, lsn, "minimal"),))
    assert found.reach(at(0)) == at(4)
