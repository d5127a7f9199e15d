"""The past of the achieved RPO: correct between readings, silent about what nobody measured, bounded in size."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest

from tmi_ops.objectives import history
from tmi_ops.objectives.facts import Usage
from tmi_ops.objectives.history import (
    PAST,
    Day,
    Hour,
    Point,
    add_point,
    growth_per_day,
    read_history,
    record_reading,
    worst_over,
)
from tmi_ops.settings import StoreSettings
from tmi_ops.store.backend import CHECKSUM
from tmi_ops.store.manifest import BrokenRecordError
from tmi_ops.store.minisign import new_secret_key
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.store.small_objects import look
from tmi_ops.store.trust import Trust, TrustedKey
from tmi_ops_tests.objectives.facts import GB, NOW, facts, reach

RPO = timedelta(minutes=15)
DAY = timedelta(days=1)


def at(clock: str, newest: str | None) -> Point:
    def moment(text: str) -> datetime:
        return datetime.combine(NOW.date(), datetime.strptime(text, "%H:%M").time(), UTC)

    return Point(at=moment(clock), newest_at=moment(newest) if newest else None)


def told(*points: Point, rpo: timedelta = RPO) -> dict[int, Hour]:
    hours: dict[int, Hour] = {}
    last = None
    for point in points:
        hours = add_point(hours, last, point, rpo)
        last = point
    return hours


def test_the_worst_comes_just_before_a_catch_up_not_at_a_reading() -> None:
    hours = told(at("10:00", "10:00"), at("10:05", "10:00"), at("10:07", "10:06"))
    assert hours[10].worst == timedelta(minutes=7).total_seconds()
    assert hours[10].measured == timedelta(minutes=7).total_seconds()


def test_where_nothing_is_archived_it_grows_with_the_clock_however_seldom_somebody_looks() -> None:
    hours = told(at("08:00", "08:00"), at("11:30", "08:00"))
    assert {number: hour.worst for number, hour in hours.items()} == {8: 3600, 9: 7200, 10: 10800, 11: 12600}
    assert sum(hour.measured for hour in hours.values()) == timedelta(hours=3.5).total_seconds()


def test_between_two_readings_far_apart_nobody_measured() -> None:
    hours = told(at("08:00", "08:00"), at("11:30", "11:29"))
    assert hours[11] == Hour(worst=60.0, measured=0.0)
    assert sum(hour.measured for hour in hours.values()) == 0
    worst = worst_over([Day(day=NOW.date(), hours=hours, last=at("11:30", "11:29"))], DAY, NOW, timedelta(minutes=1))
    assert (worst.value, worst.measured) == (timedelta(minutes=1), timedelta(0))


def test_a_backup_that_is_lost_throws_the_newest_moment_back() -> None:
    hours = told(at("10:00", "09:59"), at("10:05", "06:00"))
    assert hours[10].worst == timedelta(hours=4, minutes=5).total_seconds()


def test_time_in_which_nothing_was_proven_has_no_value_and_is_told() -> None:
    hours = told(at("10:00", None), at("10:10", None), at("10:12", "10:11"), at("10:15", "10:14"))
    worst = worst_over([Day(day=NOW.date(), hours=hours, last=at("10:15", "10:14"))], DAY, NOW, None)
    assert (worst.value, worst.unverified) == (timedelta(minutes=4), timedelta(minutes=12))
    assert worst.measured == timedelta(minutes=15)


def test_after_midnight_a_new_day_goes_on_from_the_last_reading() -> None:
    last = Point(at=NOW - 13 * timedelta(hours=1), newest_at=NOW - 13 * timedelta(hours=1))
    point = Point(at=NOW - 11.9 * timedelta(hours=1), newest_at=last.newest_at)
    hours = add_point({}, last, point, RPO)
    assert list(hours) == [0]
    assert hours[0].worst == pytest.approx(1.1 * 3600)
    assert hours[0].measured == pytest.approx(0.1 * 3600)


def test_the_worst_of_a_day_forgets_what_is_older_and_knows_what_is_now() -> None:
    yesterday = Day(day=NOW.date() - DAY, hours={3: Hour(worst=9000), 13: Hour(worst=500)}, last=at("10:00", "10:00"))
    today = Day(day=NOW.date(), hours={9: Hour(worst=300)}, last=at("10:00", "10:00"))
    assert worst_over([yesterday, today], DAY, NOW, None).value == timedelta(seconds=500)
    assert worst_over([yesterday, today], 30 * DAY, NOW, None).value == timedelta(seconds=9000)
    assert worst_over([yesterday, today], DAY, NOW, timedelta(seconds=501)).value == timedelta(seconds=501)
    assert worst_over([], DAY, NOW, None).value is None


def test_growth_is_told_from_the_oldest_reading_of_a_week() -> None:
    def day(back: int, size: int) -> Day:
        when = NOW - back * DAY
        return Day(day=when.date(), last=Point(at=when, newest_at=when), storage={"wal": size, "base": GB})

    days = [day(9, 0), day(5, GB), day(1, 5 * GB)]
    assert growth_per_day(days, NOW, 12 * GB) == pytest.approx(2 * GB)
    assert growth_per_day([], NOW, GB) is None


@pytest.fixture
def store(store_settings: StoreSettings) -> ObjectStore:
    return open_store(store_settings, "production")


def test_readings_are_kept_in_one_object_a_day(store: ObjectStore) -> None:
    for minute in range(0, 60, 2):
        moment = NOW + timedelta(minutes=minute)
        newest = reach(moment - timedelta(seconds=5))
        record_reading(store, facts(read_at=moment, verified=newest, newest=newest), RPO)
    (day,) = read_history(store, NOW)
    assert [item.key for item in store.list_objects("objectives/")] == ["objectives/2026-11-25.json"]
    assert day.hours == {12: Hour(worst=125.0, measured=58 * 60.0)}
    assert store.size("objectives/2026-11-25.json") < 1000


def test_the_bytes_of_each_kind_are_kept_beside(store: ObjectStore) -> None:
    record_reading(store, facts(storage={"wal": Usage(3, 300), "base": Usage(1, 100)}), RPO)
    assert read_history(store, NOW)[0].storage == {"wal": 300, "base": 100}


def test_of_two_who_write_at_once_none_undoes_the_other(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put, raced = history.put_stamped, []

    def first_the_other(*args: object, **kwargs: object) -> str:
        if not raced:
            raced.append(True)
            record_reading(store, facts(read_at=NOW + timedelta(minutes=1)), RPO)
        return put(*args, **kwargs)  # type: ignore[arg-type]

    record_reading(store, facts(), RPO)
    monkeypatch.setattr(history, "put_stamped", first_the_other)
    record_reading(store, facts(read_at=NOW + timedelta(minutes=2)), RPO)
    (day,) = read_history(store, NOW)
    assert (day.last.at, day.hours[12].measured) == (NOW + timedelta(minutes=2), 120.0)


def test_a_reading_older_than_the_last_is_not_kept(store: ObjectStore) -> None:
    record_reading(store, facts(), RPO)
    record_reading(store, facts(read_at=NOW - timedelta(minutes=1)), RPO)
    assert read_history(store, NOW)[0].last.at == NOW


def test_days_older_than_five_weeks_are_removed(store: ObjectStore) -> None:
    for back in (40, 36, 34, 0):
        record_reading(store, facts(read_at=NOW - back * DAY), RPO)
    kept = [item.key for item in store.list_objects("objectives/")]
    assert kept == ["objectives/2026-10-22.json", "objectives/2026-11-25.json", PAST]
    assert len(read_history(store, NOW)) == 2


def test_what_cannot_be_understood_is_never_overwritten(store: ObjectStore) -> None:
    store.put_bytes("objectives/2026-11-25.json", b'{"format_version": 99, "day": "2026-11-25"}')
    with pytest.raises(BrokenRecordError, match="cannot be parsed"):
        record_reading(store, facts(), RPO)
    assert read_history(store, NOW) == []
    assert b"99" in store.get_bytes("objectives/2026-11-25.json")


def test_readings_that_nobody_trusted_has_signed_are_no_past_and_are_begun_anew(store: ObjectStore) -> None:
    """Whoever writes the bucket could tell of a month without a breach."""
    key = new_secret_key()
    pinned = replace(store, trust=Trust("production", key, (TrustedKey(key.public, ("prover",)),)))
    later = facts(read_at=NOW + timedelta(minutes=1))
    record_reading(store, facts(), RPO)
    assert read_history(pinned, NOW) == []
    record_reading(replace(pinned, trust=replace(pinned.trust, signing=None)), later, RPO)
    assert read_history(pinned, NOW) == [], "a host that cannot sign keeps no readings"
    record_reading(pinned, later, RPO)
    assert [day.last.at for day in read_history(pinned, NOW)] == [later.server_now]
    stored = look(store, "objectives/2026-11-25.json")
    assert stored is not None
    forged = store.get_bytes("objectives/2026-11-25.json").replace(b"2026-11-25T12:01", b"2026-11-25T12:09")
    store.put("objectives/2026-11-25.json", forged, {**stored.metadata, CHECKSUM: sha256(forged).hexdigest()})
    assert read_history(pinned, NOW) == []
