"""What the probes said last, kept for the status screen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tmi_ops.checks.finding import Outcome
from tmi_ops.health.answer import answer
from tmi_ops.health.examine import Examination, examine
from tmi_ops.health.last_reading import SavedFile, open_saved_text
from tmi_ops.health.record import LastAnswers, last_answers, record_answers
from tmi_ops.health.registry import probes_of
from tmi_ops.profile.tmi import TMI
from tmi_ops.progress import SilentReport
from tmi_ops.settings import Settings


@pytest.fixture
def saved(tmp_path: Path) -> SavedFile:
    return SavedFile(tmp_path / "health" / "last-reading.json")


def kept(settings: Settings) -> LastAnswers:
    found = last_answers(open_saved_text(settings))
    assert found is not None
    return found


@pytest.mark.slow
def test_an_examination_keeps_every_verdict_in_the_store_and_one_of_a_few_probes_leaves_the_others(
    settings: Settings,
) -> None:
    assert last_answers(open_saved_text(settings)) is None
    report = examine(settings, Examination(), SilentReport())
    whole = kept(settings)
    assert list(whole.answers) == [probe.name for probe in probes_of(TMI)]
    for result in report.results:
        one = whole.answers[result.probe.name]
        assert (one.status, one.summary) == (result.outcome, result.answer.seen)

    examine(settings, Examination(only=("connections",)), SilentReport())
    after = kept(settings)
    assert after.answers["connections"].at > whole.answers["connections"].at
    assert after.answers["durability"] == whole.answers["durability"]


@pytest.mark.slow
def test_what_limits_for_one_run_judge_is_not_kept(settings: Settings) -> None:
    examine(settings, Examination(), SilentReport())
    strict = examine(settings, Examination(thresholds=("connections=0,0",)), SilentReport())
    assert strict.at(Outcome.CRITICAL)
    assert kept(settings).answers["connections"].status is Outcome.OK


def test_a_probe_that_is_not_asked_any_more_is_forgotten_by_the_next_whole_examination(saved: SavedFile) -> None:
    well = answer(Outcome.OK, "well")
    assert record_answers(saved, {"one": well, "two": well})
    assert record_answers(saved, {"two": answer(Outcome.CRITICAL, "ill")}, whole=True)
    found = last_answers(saved)
    assert found is not None
    assert {name: one.status for name, one in found.answers.items()} == {"two": Outcome.CRITICAL}


def test_what_cannot_be_read_is_as_if_nobody_had_looked_and_a_home_that_cannot_be_written_is_said(
    saved: SavedFile, tmp_path: Path
) -> None:
    saved.beside("last-verdicts.json").put(b'{"version": 99, "verdicts": {"one": 1}}')
    assert last_answers(saved) is None
    (tmp_path / "file").write_text("")
    assert not record_answers(SavedFile(tmp_path / "file" / "below"), {"one": answer(Outcome.OK, "well")})


def test_unknown_is_not_the_worst_as_long_as_any_probe_could_tell(saved: SavedFile) -> None:
    record_answers(saved, {"one": answer(Outcome.OK, "well"), "two": answer(Outcome.UNKNOWN, "no right")})
    found = last_answers(saved)
    assert found is not None
    assert found.status is Outcome.OK
    record_answers(saved, {"two": answer(Outcome.UNKNOWN, "no right")}, whole=True)
    alone = last_answers(saved)
    assert alone is not None
    assert alone.status is Outcome.UNKNOWN
