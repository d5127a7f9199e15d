"""A shadow's decisions, without a server: what it delivers next, whether it is stale, what it may report."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from tmi_ops.checks.finding import Severity
from tmi_ops.errors import DiskSpaceError, RecoveryError, SettingsError
from tmi_ops.postgres.wal_files import Segment
from tmi_ops.settings import load_settings
from tmi_ops.shadow import next_wal
from tmi_ops.shadow.base_choice import Candidate, base_behind, choose_base, own_line
from tmi_ops.shadow.continuation import Fetched, RefusedError, first_difference, verified
from tmi_ops.shadow.files import require_place
from tmi_ops.shadow.next_wal import HOLE_AFTER_S, Next, Seen, Wanted, can_follow, names_of, pause, what_next
from tmi_ops.shadow.place import destination_of
from tmi_ops.shadow.replay_state import (
    STALLED_SILENT_S,
    STALLED_WAITING_S,
    Level,
    Observed,
    record_behind,
    stalled,
    state_of,
    verified_to,
)
from tmi_ops.shadow.report import (
    KnownReport,
    RollingCheck,
    ShadowReport,
    Trouble,
    age_of,
    is_stale,
    name_from,
    prover_of,
    report_key,
)
from tmi_ops.shadow.reporting import alert_of
from tmi_ops.wal.lineage import Lineage, Stretch
from tmi_ops.wal.lines import Tip
from tmi_ops_tests.postgres.wal_pages import FIRST, SIZE, Wal, filler, level_change
from tmi_ops_tests.recovery.point_in_time.pasts import a_base, lsn

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
ONE = Lineage((Stretch(1, 0, None),))


@pytest.mark.parametrize(
    ("seen", "decision"),
    [
        (Seen(whole=True), Next.WHOLE),
        (Seen(whole=True, partial="a", handed="a"), Next.WHOLE),
        (Seen(whole=False, partial="a"), Next.PARTIAL),
        (Seen(whole=False, partial="b", handed="a"), Next.PARTIAL),
        (Seen(whole=False, partial="a", handed="a"), Next.WAIT),
        (Seen(whole=False, absent_s=HOLE_AFTER_S - 0.1), Next.WAIT),
        (Seen(whole=False, absent_s=HOLE_AFTER_S - 0.1, beyond=True), Next.WAIT),
        (Seen(whole=False, absent_s=HOLE_AFTER_S), Next.LOOK_BEYOND),
        (Seen(whole=False, absent_s=HOLE_AFTER_S, beyond=False), Next.WAIT),
        (Seen(whole=False, absent_s=HOLE_AFTER_S, beyond=True), Next.HOLE),
    ],
)
def test_what_is_handed_over_next(seen: Seen, decision: Next) -> None:
    assert what_next(seen) is decision


def test_a_segment_is_looked_for_on_the_newest_timeline_first_and_cut_where_the_line_left_the_older() -> None:
    line = Lineage((Stretch(1, 0, lsn(5.5)), Stretch(2, lsn(5.5), None)))
    fifth = Segment(1, lsn(5))
    assert names_of(line, lsn(4.2), SIZE * 16) == (Wanted(Segment(1, lsn(4))),)
    assert names_of(line, lsn(5), SIZE * 16) == (Wanted(replace(fifth, timeline=2)), Wanted(fifth, cut=lsn(5.5)))
    assert names_of(line, lsn(6), SIZE * 16) == (Wanted(Segment(2, lsn(6))),)
    at_the_edge = Lineage((Stretch(1, 0, lsn(5)), Stretch(2, lsn(5), None)))
    assert names_of(at_the_edge, lsn(5), SIZE * 16) == (Wanted(Segment(2, lsn(5))),)


def test_the_longer_nothing_comes_the_rarer_it_is_looked_for() -> None:
    pauses = [pause(idle) for idle in (0, next_wal.SLOW_AFTER_S - 1, next_wal.SLOW_AFTER_S + 30, 100_000)]
    assert pauses[0] == pauses[1] == next_wal.QUICK_LOOK_S
    assert all(one < other for one, other in pairwise(pauses[1:]))
    assert pauses[-1] == next_wal.SLOW_LOOK_S


def test_what_was_replayed_is_followed_on_only_by_a_line_that_it_is_part_of() -> None:
    other = Lineage((Stretch(1, 0, lsn(5.5)), Stretch(2, lsn(5.5), None)))
    assert can_follow(ONE, lsn(5.5), other)
    assert not can_follow(ONE, lsn(5.6), other), "it has replayed what the line left"
    assert can_follow(other, lsn(5.5), ONE)
    assert not can_follow(other, lsn(6), ONE)
    assert can_follow(other, lsn(7), other)
    third = Lineage((Stretch(1, 0, lsn(4)), Stretch(3, lsn(4), None)))
    assert not can_follow(other, lsn(6), third)
    assert can_follow(other, lsn(3), third)


def fetched(content: bytes, at: int = FIRST, *, end: int | None = None, chain: str | None = None) -> Fetched:
    segment = Segment(1, at, SIZE)
    return Fetched(segment, content, end or segment.end, end is None, "sha", chain, None if end is None else "etag")


def two_segments() -> tuple[bytes, bytes]:
    first, second, *_ = Wal().add(*[filler(200)] * 10_000).segments()
    return first, second


def test_a_segment_is_handed_over_where_its_first_record_follows_the_last_of_the_one_before() -> None:
    first, second = two_segments()
    before, stop = verified(fetched(first), None)
    assert (before.whole, before.end, stop) == (True, FIRST + SIZE, None)
    following, stop = verified(fetched(second, FIRST + SIZE), before)
    assert (following.whole, stop) == (True, None)
    alien = Wal(prev=FIRST - 4096).add(*[filler(184)] * 10_000).segments()[1]
    with pytest.raises(RefusedError) as refused:
        verified(fetched(alien, FIRST + SIZE), before)
    assert (refused.value.kind, refused.value.lsn) == ("splice", FIRST + SIZE)
    with pytest.raises(RefusedError, match="archived after another version"):
        verified(fetched(second, FIRST + SIZE, chain="of another"), before)
    alone, stop = verified(fetched(alien, FIRST + SIZE), None)
    assert stop is None, "without anything before it nothing can be said"
    assert alone.whole


def test_what_was_handed_over_of_a_segment_may_only_grow() -> None:
    whole, _ = two_segments()
    half = FIRST + SIZE // 2
    opened, _ = verified(fetched(whole[: SIZE // 2].ljust(SIZE, b"\0"), end=half), None)
    assert (opened.whole, opened.end, opened.etag) == (False, half, "etag")
    grown, _ = verified(fetched(whole), opened)
    assert grown.whole
    with pytest.raises(RefusedError, match="became shorter") as refused:
        verified(fetched(whole, end=half - 1), opened)
    assert refused.value.kind == "splice"
    other = bytearray(whole)
    other[SIZE // 4] ^= 1
    with pytest.raises(RefusedError, match="was changed from") as refused:
        verified(fetched(bytes(other)), opened)
    assert refused.value.lsn == FIRST + SIZE // 4
    other = bytearray(whole)
    other[SIZE // 2] ^= 1
    assert verified(fetched(bytes(other)), opened)[0].whole, "nobody knew that byte before"


def test_wal_behind_a_restart_with_minimal_level_is_not_handed_over() -> None:
    wal = Wal().add(*[filler(200)] * 20, level_change(0), *[filler(200)] * 20)
    at = wal.placed[20]
    (content,) = wal.segments()
    handed, stop = verified(fetched(content, end=wal.end), None)
    assert stop is not None
    assert (stop.kind, stop.lsn, handed.end) == ("minimal WAL", at, at)
    assert not any(handed.content[at - FIRST :])
    assert handed.content[: at - FIRST] == content[: at - FIRST]
    harmless = Wal().add(*[filler(200)] * 20, level_change(1))
    assert verified(fetched(harmless.segments()[0], end=harmless.end), None)[1] is None


@pytest.mark.parametrize("place", [0, 1, 499, 998, 999])
def test_the_first_byte_that_differs(place: int) -> None:
    one = bytes(1000)
    other = bytearray(one)
    other[place:] = b"x" * (1000 - place)
    assert first_difference(one, bytes(other), 1000) == place
    assert first_difference(one, bytes(other), place) is None


def observed(**changes: object) -> Observed:
    seen = Observed(
        replayed=lsn(5),
        commit_at=NOON,
        waits=True,
        still_s=0.0,
        handed_to=lsn(5),
        more=False,
        archived_to=lsn(5),
    )
    return replace(seen, **changes)  # type: ignore[arg-type]


def test_it_is_level_where_all_is_replayed_that_the_archive_is_known_to_have() -> None:
    assert state_of(observed(), stopped=False) == "level"
    assert state_of(observed(archived_to=lsn(6)), stopped=False) == "catching up"
    assert state_of(observed(more=True), stopped=False) == "catching up"
    assert state_of(observed(more=None), stopped=False) == "catching up"
    assert state_of(observed(), stopped=True) == "stopped"


def test_verified_is_the_moment_at_which_the_receiver_was_level_once_all_of_that_is_replayed() -> None:
    later = NOON + timedelta(seconds=30)
    assert verified_to(observed(), ONE, None) == NOON, "the newest commit, without a receiver's word"
    assert verified_to(observed(level=Level(1, lsn(5), later)), ONE, None) == later
    assert verified_to(observed(level=Level(1, lsn(5) + 1, later)), ONE, None) == NOON, "more was to be stored"
    assert verified_to(observed(level=Level(1, lsn(5), later), more=True), ONE, None) == NOON
    assert verified_to(observed(level=Level(1, lsn(5), later), more=None), ONE, None) == NOON
    assert verified_to(observed(level=Level(2, lsn(5), later)), ONE, None) == NOON, "another line's receiver"
    left = Lineage((Stretch(1, 0, lsn(4)), Stretch(2, lsn(4), None)))
    assert verified_to(observed(level=Level(1, lsn(5), later)), left, None) == NOON, "beyond where the line left it"
    assert verified_to(observed(), ONE, later) == later, "what was verified stays so"
    assert verified_to(observed(commit_at=None), ONE, None) is None


def test_a_commit_of_a_clock_that_was_ahead_verifies_no_more_than_the_receiver_knows() -> None:
    """The source's clock was an hour ahead for a while; the shadow stands before the archive's end."""
    ahead, level = NOON + timedelta(hours=1), Level(1, lsn(6), NOON + timedelta(minutes=2))
    behind = observed(commit_at=ahead, level=level, more=True)
    assert verified_to(behind, ONE, None) == level.at
    assert verified_to(behind, ONE, ahead) == level.at, "nor where it was believed before"
    assert verified_to(replace(behind, replayed=lsn(7)), ONE, None) == ahead, "the receiver's word is older than that"


@pytest.mark.parametrize("amiss", ["something there", "a file there", "no room"])
def test_where_a_shadow_cannot_be_moved_to_is_known_before_it_is_promoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amiss: str
) -> None:
    settings = load_settings({"TMI_OPS_HOME": str(tmp_path / "home"), "POSTGRES_DB": "tmi"})
    data = destination_of(settings).directory
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("17")
    into = tmp_path / "into"
    require_place(settings, into)
    if amiss == "a file there":
        into.write_text("mine")
    else:
        into.mkdir()
        require_place(settings, into)
    if amiss == "something there":
        (into / "mine").touch()
    if amiss == "no room":
        elsewhere = next(place for place in (Path("/proc"), Path("/dev")) if place.is_dir()) / "into"
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1))
        into = elsewhere
    with pytest.raises((RecoveryError, DiskSpaceError)):
        require_place(settings, into)


def test_it_is_stalled_where_the_server_waits_for_wal_although_it_has_some() -> None:
    stuck = observed(more=True, still_s=STALLED_WAITING_S, archived_to=lsn(7), broke="incorrect resource manager data")
    found = stalled(stuck, ONE, 16 * SIZE)
    assert found is not None
    assert (found.kind, found.lsn, found.segment) == (
        "record that cannot be replayed",
        lsn(5) + 40,  # behind the header of the segment's first page
        Segment(1, lsn(5)).name,
    )
    assert stalled(replace(stuck, more=None), ONE, 16 * SIZE) is not None
    assert stalled(replace(stuck, more=False), ONE, 16 * SIZE) is None
    assert stalled(replace(stuck, still_s=STALLED_WAITING_S - 0.1), ONE, 16 * SIZE) is None
    assert stalled(replace(stuck, waits=False), ONE, 16 * SIZE) is None, "one record may take long"
    assert stalled(replace(stuck, waits=False, still_s=STALLED_SILENT_S), ONE, 16 * SIZE) is not None
    assert stalled(replace(stuck, waits=False, still_s=STALLED_SILENT_S, delayed=True), ONE, 16 * SIZE) is None
    assert stalled(replace(stuck, waits=None), ONE, 16 * SIZE) is None
    assert stalled(replace(stuck, waits=None, still_s=STALLED_SILENT_S), ONE, 16 * SIZE) is not None
    assert [record_behind(at, 16 * SIZE) for at in (lsn(5) + 8192, lsn(5) + 8200)] == [lsn(5) + 8216, lsn(5) + 8200]
    spliced = stalled(replace(stuck, broke="record with incorrect prev-link 0/1 at 0/2"), ONE, 16 * SIZE)
    assert spliced is not None
    assert spliced.kind == "splice"


def report(**changes: object) -> ShadowReport:
    facts = {
        "name": "standby-1",
        "host": "one",
        "environment": "development",
        "system_identifier": "7",
        "began_at": NOON,
        "written_at": NOON,
        "every_s": 15.0,
        "state": "level",
        "verified_to": NOON,
        **changes,
    }
    return ShadowReport.model_validate(facts)


def test_a_report_is_as_old_as_the_clock_says_that_makes_it_older() -> None:
    def age(stored: float, signed: float) -> timedelta:
        return age_of(report(), timedelta(seconds=stored), NOON + timedelta(seconds=signed))

    assert age(2, 5) == timedelta(seconds=5)
    assert age(5, 2) == timedelta(seconds=5)
    assert age(0, 86_400) == timedelta(days=1), "an old report that was put there again"
    assert age(3, -10) == timedelta(seconds=3)
    assert age(3, -3600) == timedelta(seconds=3), "clocks disagree: the store's counts"


def test_a_report_that_misses_three_turns_is_refused() -> None:
    assert not is_stale(timedelta(seconds=60), 15)
    assert is_stale(timedelta(seconds=61), 15)
    assert not is_stale(timedelta(seconds=300), 100)
    assert is_stale(timedelta(seconds=301), 100)


def test_the_word_of_the_shadow_counts_that_is_fresh_undelayed_and_furthest() -> None:
    def known(age_s: float = 1, **changes: object) -> KnownReport:
        return KnownReport(report(**changes), timedelta(seconds=age_s))

    further = known(verified_to=NOON + timedelta(seconds=5))
    assert prover_of([known(), further], "7") is further
    for other in (
        known(age_s=100, verified_to=NOON + timedelta(hours=1)),
        known(delay_s=60, verified_to=NOON + timedelta(hours=1)),
        known(state="restoring", verified_to=NOON + timedelta(hours=1)),
        known(state="ended", verified_to=NOON + timedelta(hours=1)),
        known(system_identifier="8", verified_to=NOON + timedelta(hours=1)),
        known(verified_to=None),
    ):
        assert prover_of([further, other], "7") is further
        assert prover_of([other], "7") is None
    stopped = known(
        state="stopped",
        troubles=(Trouble(kind="hole", what="A hole.", since=NOON),),
        verified_to=NOON + timedelta(hours=1),
    )
    assert prover_of([stopped, further], "7") is further, "one that goes on is believed first"
    assert prover_of([stopped], "7") is stopped


def test_what_speaks_against_a_shadow() -> None:
    def check(name: str, outcome: str) -> RollingCheck:
        return RollingCheck.model_validate({"name": name, "outcome": outcome, "at": NOON})

    assert report(checks=(check("amcheck", "passed"), check("heartbeat", "not run"))).is_sound
    assert not report(checks=(check("amcheck", "failed"),)).is_sound
    assert report(checks=(check("schema", "failed"),)).is_sound, "the living database may lack it, too"
    beside_its_way = Trouble(kind="foreign timeline", what="Two live.", since=NOON, stops=False)
    assert report(troubles=(beside_its_way,)).is_sound
    assert not report(troubles=(beside_its_way.model_copy(update={"stops": True}),)).is_sound


@pytest.mark.parametrize("name", ["", "A", "a/b", "../x", "a" * 41, "-a", "ä", "a\n"])
def test_a_name_that_could_lead_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(SettingsError):
        report_key(name)


def test_a_shadow_is_called_as_its_host_is() -> None:
    assert name_from("DB_Shadow-1.example.org") == "db-shadow-1"
    assert name_from("___") == "shadow"
    assert report_key(name_from("x" * 80))


def test_it_begins_with_the_newest_verified_base_that_leads_to_the_end() -> None:
    new, middle, old = (a_base(f"2026112{day}T000000Z-base-0000", day) for day in (7, 6, 5))
    best = [Candidate(new, False, True), Candidate(middle, True, True), Candidate(old, True, True)]
    assert choose_base(best) is middle
    assert choose_base([Candidate(new, False, True), Candidate(old, False, True)]) is new
    assert choose_base([Candidate(new, False, True), Candidate(old, True, False)]) is new, "its WAL has a hole"
    assert choose_base([]) is None
    assert base_behind(best, lsn(6)) is new
    assert base_behind(best, lsn(9)) is None


def test_people_are_told_of_the_place_at_once_and_of_what_passes_by_itself_only_when_it_has_not() -> None:
    def trouble(kind: str, *, stops: bool = True) -> Trouble:
        facts = {"kind": kind, "what": "Segment X is missing.", "lsn": "0/5000000", "since": NOON, "stops": stops}
        return Trouble.model_validate(facts)

    soon, later = NOON + timedelta(seconds=5), NOON + timedelta(seconds=120)
    assert alert_of(report(), soon) is None
    hole = alert_of(report(troubles=(trouble("hole"),)), soon)
    assert hole is not None
    assert hole.severity is Severity.CRITICAL
    assert "0/5000000" in hole.summary
    assert "Segment X is missing." in hole.at_risk
    assert alert_of(report(troubles=(trouble("store away"),)), soon) is None
    away = alert_of(report(troubles=(trouble("store away"),)), later)
    assert away is not None
    assert away.severity is Severity.WARNING
    foreign = alert_of(report(troubles=(trouble("foreign timeline", stops=False), trouble("hole"))), soon)
    assert foreign is not None
    assert "hole" in foreign.summary, "what stops it comes first"
    bad = RollingCheck(name="page_checksums", outcome="failed", detail="One page is bad.", at=NOON)
    damage = alert_of(report(checks=(bad,)), soon)
    assert damage is not None
    assert "One page is bad." in damage.at_risk


def test_where_several_lines_live_a_shadow_stays_on_its_own() -> None:
    other = Lineage((Stretch(1, 0, lsn(4)), Stretch(2, lsn(4), None)))
    tips = (Tip(ONE, lsn(6)), Tip(other, lsn(5)))
    assert own_line(tips, 1) == ONE
    assert own_line(tips, 2) == other
    assert own_line(tips, 3) is None
    assert own_line(tips, None) is None
    assert own_line(tips[1:], 1) is None, "its own is abandoned"
