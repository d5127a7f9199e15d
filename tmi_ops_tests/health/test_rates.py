"""Rates from two readings: what is compared, what is not, and where a reading is kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tmi_ops.health.answer import CannotTell, Cause
from tmi_ops.health.counters import CounterGroup, Counters, Window
from tmi_ops.health.last_reading import (
    Kept,
    SavedFile,
    SavedObject,
    SavedText,
    next_kept,
    open_saved_text,
    recall,
    remember,
    window,
)
from tmi_ops.settings import Settings, StoreSettings
from tmi_ops.store.objects import open_store

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def reading(
    hours: float = 0, *, commits: float = 0, reset: datetime | None = None, grow: bool = True, **changes: str | datetime
) -> Counters:
    facts = {"started_at": NOON - timedelta(days=1), "system_identifier": "7", "database": "tmi", **changes}
    group = CounterGroup(reset_at=reset, only_grow=grow, values={"commits": commits})
    return Counters(taken_at=NOON + timedelta(hours=hours), groups={"transactions": group}, **facts)  # type: ignore[arg-type]


def test_a_rate_is_the_difference_over_the_time_between() -> None:
    change = Window(reading(1, commits=7200), reading(0, commits=3600)).change("transactions")
    assert change.per_second("commits") == 1
    assert change.per_day("commits") == 86400


def test_a_first_reading_has_no_rates_and_says_so() -> None:
    with pytest.raises(CannotTell, match="first reading") as untold:
        Window(reading()).change("transactions")
    assert untold.value.cause is Cause.TOO_EARLY
    assert Window(reading()).maybe("transactions") is None


def test_a_reset_of_the_statistics_is_noticed_and_no_rate_made_up() -> None:
    with pytest.raises(CannotTell, match="statistics were reset at 2026-01-01 12:30"):
        Window(reading(1, commits=9, reset=NOON + timedelta(minutes=30)), reading(0, commits=5, reset=NOON)).change(
            "transactions"
        )


def test_statistics_that_only_began_are_not_taken_for_reset() -> None:
    begun = Window(reading(1, commits=9, reset=NOON + timedelta(minutes=30)), reading(0, commits=5))
    assert begun.change("transactions").values["commits"] == 4


def test_a_counter_that_fell_was_reset_even_where_the_server_does_not_say_but_a_size_may_fall() -> None:
    with pytest.raises(CannotTell, match="reset"):
        Window(reading(1, commits=5), reading(0, commits=9)).change("transactions")
    shrunk = Window(reading(1, commits=5, grow=False), reading(0, commits=9, grow=False)).change("transactions")
    assert shrunk.values["commits"] == -4


def test_a_clock_that_went_back_makes_no_rate() -> None:
    with pytest.raises(CannotTell, match="clock went back"):
        Window(reading(0), reading(0)).change("transactions")


def test_a_restart_is_noticed_and_the_rates_go_on() -> None:
    seen = Window(reading(1, commits=9, started_at=NOON), reading(0, commits=5))
    assert seen.restarted
    assert seen.change("transactions").values["commits"] == 4


@pytest.mark.parametrize("changes", [{"system_identifier": "8"}, {"database": "other"}, {"hours": 2.0}])
def test_a_reading_of_another_server_or_database_or_of_the_future_is_not_compared(changes: dict[str, object]) -> None:
    kept = Kept(last=reading(**changes))  # type: ignore[arg-type]
    assert window(kept, reading(1)).last is None


def test_growth_is_measured_over_one_to_two_days_once_there_are_that_many() -> None:
    kept: Kept | None = None
    for hour in range(80):
        seen = window(kept, reading(hour, commits=hour, grow=False))
        kept = next_kept(seen)
        if hour > 48:
            assert 24 <= seen.change("transactions", over_days=True).seconds / 3600 <= 48
        elif hour:
            assert seen.change("transactions", over_days=True).seconds == hour * 3600
    assert kept is not None
    assert len(kept.days) == 2


def test_a_person_looking_twice_does_not_shorten_the_next_window() -> None:
    kept = Kept(last=reading(0))
    assert next_kept(window(kept, reading(10 / 3600))) is None
    assert next_kept(window(kept, reading(61 / 3600))) is not None


@pytest.fixture(params=["store", "home"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> SavedText:
    if request.param == "home":
        return SavedFile(tmp_path / "home" / "health" / "last-reading.json")
    return SavedObject(open_store(request.getfixturevalue("store_settings"), "development"))


def test_what_is_kept_comes_back_whole(saved: SavedText) -> None:
    assert recall(saved) is None
    assert remember(saved, Window(reading(commits=7, reset=NOON)))
    kept = recall(saved)
    assert kept is not None
    assert kept.last == reading(commits=7, reset=NOON)


def test_what_cannot_be_read_is_as_if_nothing_were_kept_and_is_replaced(saved: SavedText) -> None:
    saved.put(b'{"version": 99}')
    assert recall(saved) is None
    assert remember(saved, Window(reading()))
    assert recall(saved) is not None


def test_the_reading_goes_into_the_store_below_the_environment(settings: Settings) -> None:
    opened = open_saved_text(settings)
    assert isinstance(opened, SavedObject)
    assert remember(opened, Window(reading()))
    store = open_store(settings.store, "development")
    assert [one.key for one in store.list_objects("health/")] == ["health/last-reading.json"]
    assert store.root == f"{settings.store.prefix}/development/"


def test_without_a_store_the_reading_is_kept_at_home(settings: Settings) -> None:
    unreachable = StoreSettings(bucket="gone", endpoint_url="http://127.0.0.1:9")
    for store in (StoreSettings(), unreachable):
        opened = open_saved_text(settings.model_copy(update={"store": store}))
        assert isinstance(opened, SavedFile)
        assert opened.file == settings.home / "development" / "health" / "last-reading.json"


def test_a_home_that_cannot_be_written_is_said_not_raised(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not remember(SavedFile(tmp_path / "file" / "below"), Window(reading()))
