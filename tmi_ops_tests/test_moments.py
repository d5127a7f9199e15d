"""Moments are read the same everywhere; local times that exist twice or never are not guessed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import click
import pytest
from click.testing import CliRunner

from tmi_ops.cli.moments import to_a_moment
from tmi_ops.recovery.point_in_time.target import format_time
from tmi_ops.settings.moments import read_moment

NOW = datetime(2026, 11, 27, 19, 0, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
AT = datetime(2026, 11, 27, 18, 6, 45, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-27 18:06:45 UTC",
        "2026-11-27 18:06:45 UTC (53 min ago)",
        " 2026-11-27T18:06:45Z ",
        "2026-11-27 18:06:45+00",
        "2026-11-27 18:06:45.000000+00",
        "2026-11-27 19:06:45+01:00",
        "2026-11-27 18:06:45 gmt",
        "2026-11-27 19:06:45 Europe/Berlin",
        "53m 15s ago",
    ],
)
def test_what_names_its_zone_is_that_moment_and_nothing_is_assumed(text: str) -> None:
    found = read_moment(text, now=NOW, zone=BERLIN)
    assert (found.at, found.zone) == (AT, "")


@pytest.mark.parametrize("moment", [AT, AT.replace(microsecond=123456)])
def test_our_own_output_is_read_as_what_it_said(moment: datetime) -> None:
    assert read_moment(format_time(moment), now=NOW).at == moment


def test_a_time_without_a_zone_says_whose_it_was_given() -> None:
    found = read_moment("2026-11-27 19:06:45", now=NOW, zone=BERLIN)
    assert found.at == AT
    assert "CET (UTC+0100)" in found.zone
    assert read_moment("2026-11-27 18:06:45", now=NOW, zone=UTC).at == AT


def test_a_local_time_that_exists_twice_is_refused_with_both_readings() -> None:
    with pytest.raises(ValueError, match="exists twice in Europe/Berlin") as caught:
        read_moment("2026-10-25 02:30", now=NOW, zone=BERLIN)
    assert "'2026-10-25 00:30:00 UTC' or '2026-10-25 01:30:00 UTC'" in str(caught.value)
    with pytest.raises(ValueError, match="exists twice"):
        read_moment("2026-10-25 02:30 Europe/Berlin", now=NOW)
    assert read_moment("2026-10-25 02:30+02", now=NOW, zone=BERLIN).at == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


def test_a_local_time_that_never_existed_is_refused_with_both_readings() -> None:
    with pytest.raises(ValueError, match="never existed in Europe/Berlin") as caught:
        read_moment("2026-03-29 02:30", now=NOW, zone=BERLIN)
    assert "'2026-03-29 00:30:00 UTC' or '2026-03-29 01:30:00 UTC'" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["noonish", "", "2026-11-27 18:06:45 CST", "2026-11-27 18:06+01 UTC", "12 ago", "2026-13-01"]
)
def test_what_is_no_moment_or_means_several_zones_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a|names|unknown time zone"):
        read_moment(text, now=NOW)


def test_the_future_is_refused() -> None:
    with pytest.raises(ValueError, match="is in the future"):
        read_moment((NOW + timedelta(seconds=1)).isoformat(), now=NOW)


def test_the_option_tells_on_standard_error_which_zone_it_took() -> None:
    @click.command()
    @to_a_moment()
    def command(to_time: datetime | None, to_lsn: int | None, to_name: str | None) -> None:
        click.echo(to_time)

    told = CliRunner().invoke(command, ["--to-time", "2026-01-24 03:44"])
    assert told.exit_code == 0
    assert "was read in the time zone of this machine" in told.stderr
    silent = CliRunner().invoke(command, ["--to-time", "2026-01-24 03:44:00 UTC"])
    assert (silent.stderr, silent.stdout) == ("", "2026-01-24 03:44:00+00:00\n")
    assert CliRunner().invoke(command, ["--to-time", "2026-01-24 03:44 XYZ"]).exit_code == 2
