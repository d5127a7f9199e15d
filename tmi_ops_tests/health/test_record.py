"""What the probes said last, kept for the status screen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tmi_ops.checks.finding import Outcome
from tmi_ops.health.examine import Examination, examine
from tmi_ops.health.last_reading import SavedFile, open_saved_text
from tmi_ops.health.record import LastVerdicts, last_verdicts, record_verdicts
from tmi_ops.health.registry import probes_of
from tmi_ops.health.verdict import verdict
from tmi_ops.profile.tmi import TMI
from tmi_ops.progress import SilentReport
from tmi_ops.settings import Settings


@pytest.fixture
def shelf(tmp_path: Path) -> SavedFile:
    return SavedFile(tmp_path / "health" / "last-reading.json")


def kept(settings: Settings) -> LastVerdicts:
    found = last_verdicts(open_saved_text(settings))
    assert found is not None
    return found


@pytest.mark.slow
def test_an_examination_keeps_every_verdict_in_the_store_and_one_of_a_few_probes_leaves_the_others(
    settings: Settings,
) -> None:
    assert last_verdicts(open_saved_text(settings)) is None
    report = examine(settings, Examination(), SilentReport())
    whole = kept(settings)
    assert list(whole.verdicts) == [probe.name for probe in probes_of(TMI)]
    for result in report.results:
        one = whole.verdicts[result.probe.name]
        assert (one.status, one.summary) == (result.outcome, result.answer.seen)

    examine(settings, Examination(only=("connections",)), SilentReport())
    after = kept(settings)
    assert after.verdicts["connections"].at > whole.verdicts["connections"].at
    assert after.verdicts["durability"] == whole.verdicts["durability"]


@pytest.mark.slow
def test_what_limits_for_one_run_judge_is_not_kept(settings: Settings) -> None:
    examine(settings, Examination(), SilentReport())
    strict = examine(settings, Examination(thresholds=("connections=0,0",)), SilentReport())
    assert strict.at(Outcome.CRITICAL)
    assert kept(settings).verdicts["connections"].status is Outcome.OK


def test_a_probe_that_is_not_asked_any_more_is_forgotten_by_the_next_whole_examination(shelf: SavedFile) -> None:
    well = verdict(Outcome.OK, "well")
    assert record_verdicts(shelf, {"one": well, "two": well})
    assert record_verdicts(shelf, {"two": verdict(Outcome.CRITICAL, "ill")}, whole=True)
    found = last_verdicts(shelf)
    assert found is not None
    assert {name: one.status for name, one in found.verdicts.items()} == {"two": Outcome.CRITICAL}


def test_what_cannot_be_read_is_as_if_nobody_had_looked_and_a_home_that_cannot_be_written_is_said(
    shelf: SavedFile, tmp_path: Path
) -> None:
    shelf.beside("last-verdicts.json").put(b'{"version": 99, "verdicts": {"one": 1}}')
    assert last_verdicts(shelf) is None
    (tmp_path / "file").write_text("")
    assert not record_verdicts(SavedFile(tmp_path / "file" / "below"), {"one": verdict(Outcome.OK, "well")})


def test_unknown_is_not_the_worst_as_long_as_any_probe_could_tell(shelf: SavedFile) -> None:
    record_verdicts(shelf, {"one": verdict(Outcome.OK, "well"), "two": verdict(Outcome.UNKNOWN, "no right")})
    found = last_verdicts(shelf)
    assert found is not None
    assert found.status is Outcome.OK
    record_verdicts(shelf, {"two": verdict(Outcome.UNKNOWN, "no right")}, whole=True)
    alone = last_verdicts(shelf)
    assert alone is not None
    assert alone.status is Outcome.UNKNOWN
