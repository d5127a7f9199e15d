"""A run is the same run whatever cuts it off: shown on a runbook whose deeds are lines of a file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tmi_ops.error_codes import Code
from tmi_ops.errors import DatabaseError, RecoveryError
from tmi_ops.progress import SilentReport
from tmi_ops.runbooks.execution import (
    Action,
    Confirm,
    DeclinedError,
    DeferredError,
    Fault,
    Moment,
    RunbookError,
    Work,
    begin,
    carry_out,
    how_to_continue,
    standing,
    undo_run,
)
from tmi_ops.runbooks.journal import Consent, Journal
from tmi_ops.runbooks.logbook import BrokenJournalError, Logbook, find_run, journal_bytes, list_runs
from tmi_ops.runbooks.plan import Fact, Plan, Step
from tmi_ops.runbooks.unfinished import refuse_unfinished
from tmi_ops.settings import OBJECTIVES, PostgresSettings, RedisSettings, Settings, StoreSettings
from tmi_ops.store.minisign import new_secret_key
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.store.trust import Trust, TrustedKey
from tmi_ops_tests.physical import Notes
from tmi_ops_tests.raw_s3 import s3_of
from tmi_ops_tests.runbooks.crashes import Crash, crash_at, every_place

REPORT = SilentReport()
PLAN = Plan(
    runbook="example",
    title="An example",
    subject="a file",
    steps=(
        Step(name="look", does="look at it"),
        Step(name="fence", does="shut people out", effect="interrupts", way_back="let them in again"),
        Step(name="copy", does="make a copy"),
        Step(name="swap", does="put the copy in its place", effect="irreversible", way_back="exchange them again"),
        Step(name="open", does="let people in", effect="irreversible"),
    ),
    untouched="Nothing else is touched.",
)
NAMES = tuple(step.name for step in PLAN.steps)
KILLED = -9


class Seen(Fact):
    """What the first step saw."""

    number: int


def yes(_journal: Journal, _step: Step) -> bool:
    return True


def no(_journal: Journal, _step: Step) -> bool:
    return False


def action(name: str) -> Callable[[Work], None]:
    def do(work: Work) -> None:
        lines = work.directory / "lines"
        if name == "look":
            work.remember(Seen(number=17))
        elif name == "copy":
            assert work.known(Seen).number == 17
        work.say(f"{name} came to its end")
        written = lines.read_text().splitlines() if lines.exists() else []
        if name not in written:
            lines.write_text("\n".join([*written, name]))

    return do


def undo(name: str) -> Callable[[Work], None]:
    def back(work: Work) -> None:
        lines = work.directory / "lines"
        lines.write_text("\n".join(line for line in lines.read_text().splitlines() if line != name))

    return back


ACTIONS = {name: Action(action(name), undo(name) if name in ("fence", "swap") else None) for name in NAMES}


@dataclass(frozen=True)
class Running:
    settings: Settings
    store: ObjectStore
    logbook: Logbook

    def go(self, confirm: Confirm = yes, fault: Fault | None = None, **others: Action) -> Journal:
        actions = {**ACTIONS, **others}
        return carry_out(self.settings, self.store, self.logbook, actions, REPORT, confirm, fault=fault)

    def back(self) -> Journal:
        return undo_run(self.settings, self.store, self.logbook, ACTIONS, REPORT)

    def lines(self) -> list[str]:
        file = self.logbook.directory / "lines"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def run(tmp_path: Path, store_settings: StoreSettings) -> Running:
    settings = Settings(
        environment="development",
        postgres=PostgresSettings(),
        redis=RedisSettings(),
        store=store_settings,
        objectives=OBJECTIVES["development"],
        home=tmp_path / "home",
    )
    store = open_store(settings.store, settings.environment)
    logbook, _ = begin(settings, store, PLAN, REPORT)
    return Running(settings, store, logbook)


@pytest.mark.slow
@pytest.mark.parametrize(("step", "moment"), every_place(NAMES))
def test_a_crash_anywhere_is_gone_on_from_and_ends_as_if_there_had_been_none(
    run: Running, step: str, moment: Moment
) -> None:
    with pytest.raises(Crash):
        run.go(fault=crash_at(step, moment))
    crashed = run.logbook.read()
    done = run.go()
    assert run.lines() == list(NAMES)
    assert (done.state, done.pending) == ("done", ())
    assert len(done.consents) == 2
    again = 0 if moment == "recorded" else 1
    assert sum(one.step == step for one in done.attempts) == 1 + again
    assert sum(one.outcome == "running" for one in done.attempts) == again
    assert set(crashed.done) <= set(done.done)


def test_evidence_is_left_here_and_in_the_store_with_every_step_and_its_time(run: Running) -> None:
    done = run.go()
    for name in ("evidence.json", "evidence.html", "journal.json"):
        here = (run.logbook.directory / name).read_bytes()
        assert here == run.store.get_bytes(f"runbooks/{done.run_id}/{name}")
    evidence = json.loads((run.logbook.directory / "evidence.json").read_text())
    assert evidence["outcome"] == "recovered"
    assert list(evidence["phases"]) == list(NAMES)
    page = (run.logbook.directory / "evidence.html").read_text()
    assert "RECOVERED" in page
    assert all(f"{name} came to its end" in page for name in NAMES)
    assert "src=" not in page


def test_a_yes_is_asked_before_what_is_felt_and_before_what_cannot_be_undone_and_a_no_keeps_all_as_it_is(
    run: Running,
) -> None:
    asked: list[str] = []

    def only_the_fence(_journal: Journal, step: Step) -> bool:
        asked.append(step.name)
        return step.effect == "interrupts"

    with pytest.raises(DeclinedError) as declined:
        run.go(no)
    assert run.lines() == ["look"]
    assert "were not touched" in declined.value.detail
    with pytest.raises(DeclinedError) as declined:
        run.go(only_the_fence)
    assert asked == ["fence", "swap"]
    assert run.lines() == ["look", "fence", "copy"]
    assert f"tmi-ops recover back {run.logbook.run_id}" in declined.value.hint
    run.go(yes)
    assert run.lines() == list(NAMES)


def test_a_failed_step_says_what_is_done_how_to_go_on_and_how_to_go_back(run: Running) -> None:
    def fail(_work: Work) -> None:
        raise DatabaseError("The server is away.", hint="start it")

    with pytest.raises(RunbookError) as failed:
        run.go(copy=Action(fail))
    assert "Step 3 of 5 (copy) failed: The server is away." in failed.value.message
    assert failed.value.code is Code.POSTGRESQL
    assert "Steps done: look, fence." in failed.value.detail
    assert failed.value.hint.startswith("start it; then continue: `tmi-ops recover resume ")
    stopped = run.logbook.read()
    assert (stopped.state, stopped.done) == ("stopped", ("look", "fence"))
    attempt = stopped.last("copy")
    assert attempt is not None
    assert (attempt.outcome, attempt.said) == ("failed", ("The server is away.",))
    assert run.go().state == "done"


def test_a_run_is_taken_back_from_its_last_step_to_its_first_and_not_gone_on_with(run: Running) -> None:
    with pytest.raises(Crash):
        run.go(fault=crash_at("swap", "action done"))
    assert run.lines() == ["look", "fence", "copy", "swap"]
    assert run.back().state == "taken back"
    assert run.lines() == ["look", "copy"]
    with pytest.raises(RecoveryError) as undone:
        run.go()
    assert undone.value.code is Code.RUN_UNDONE


def test_what_has_no_way_back_is_not_taken_back(run: Running) -> None:
    with pytest.raises(Crash):
        run.go(fault=crash_at("open", "begun"))
    with pytest.raises(RecoveryError, match="step open was started") as irreversible:
        run.back()
    assert irreversible.value.code is Code.CANNOT_UNDO
    assert run.go().state == "done"
    with pytest.raises(RecoveryError, match="is done"):
        run.back()
    assert run.lines() == list(NAMES)


def test_two_processes_never_carry_out_the_same_run(run: Running) -> None:
    with run.logbook.locked(), pytest.raises(RecoveryError, match="Another process"):
        run.go()
    assert run.lines() == []


def test_a_run_whose_machine_is_lost_is_found_in_the_store(run: Running, tmp_path: Path) -> None:
    with pytest.raises(Crash):
        run.go(fault=crash_at("copy", "recorded"))
    elsewhere = run.settings.model_copy(update={"home": tmp_path / "elsewhere"})
    (listed,) = list_runs(elsewhere, run.store, REPORT)
    assert (listed.run_id, listed.done) == (run.logbook.run_id, ("look", "fence", "copy"))
    _, found = find_run(elsewhere, run.store, "latest")
    assert found == run.logbook.read().model_copy(update={"consents": ()})
    with pytest.raises(RecoveryError, match="No runs"):
        find_run(elsewhere, run.store, "1999")


def test_on_another_machine_only_what_lay_on_the_lost_one_and_is_needed_still_is_done_again(
    run: Running, tmp_path: Path
) -> None:
    def not_here(work: Work) -> str:
        return "" if (work.directory / "lines").exists() else "It is not on this machine."

    machine_bound = {
        "look": replace(ACTIONS["look"], lost=not_here),
        "copy": replace(ACTIONS["copy"], lost=not_here),
        "swap": replace(ACTIONS["swap"], needs=("copy",)),
    }
    with pytest.raises(Crash):
        run.go(fault=crash_at("copy", "recorded"), **machine_bound)
    elsewhere = run.settings.model_copy(update={"home": tmp_path / "elsewhere"})
    logbook, _ = find_run(elsewhere, run.store)
    done = replace(run, settings=elsewhere, logbook=logbook).go(**machine_bound)
    assert (logbook.directory / "lines").read_text().splitlines() == ["copy", "swap", "open"]
    assert [one.outcome for one in done.attempts if one.step == "copy"] == ["done", "failed", "done"]
    _, here = find_run(run.settings, run.store)
    assert here == run.logbook.read() != done, "anybody may have written the store's copy: the local journal counts"


@pytest.mark.slow
def test_the_first_machine_learns_from_a_signed_journal_that_another_one_went_on(run: Running, tmp_path: Path) -> None:
    key = new_secret_key()
    run = replace(run, store=replace(run.store, trust=Trust("development", key, (TrustedKey(key.public),))))
    run = replace(run, logbook=Logbook(run.logbook.directory, run.store))
    with pytest.raises(Crash):
        run.go(fault=crash_at("copy", "recorded"))
    consents = run.logbook.read().consents
    elsewhere = run.settings.model_copy(update={"home": tmp_path / "elsewhere"})
    logbook, fetched = find_run(elsewhere, run.store)
    assert consents and not fetched.consents, "whoever goes on elsewhere is asked again"
    done = replace(run, settings=elsewhere, logbook=logbook).go()
    _, here = find_run(run.settings, run.store)
    assert here == done.model_copy(update={"consents": consents})


def test_a_yes_written_into_the_store_is_nobodys_yes(run: Running, tmp_path: Path) -> None:
    """The attack: a run that waits for a person is given the person's consent by who can write the bucket."""
    with pytest.raises(Crash):
        run.go(fault=crash_at("look", "recorded"))
    journal = run.logbook.read()
    forged = Consent(effect="irreversible", step="swap", given_at=datetime.now(UTC))
    further = journal.model_copy(update={"consents": (forged,), "returning_at": datetime.now(UTC) + timedelta(days=1)})
    run.store.put_bytes(f"runbooks/{journal.run_id}/journal.json", journal_bytes(further))
    assert find_run(run.settings, run.store)[1] == journal
    elsewhere = run.settings.model_copy(update={"home": tmp_path / "elsewhere"})
    assert find_run(elsewhere, run.store)[1].consents == ()
    run.store.put_bytes("runbooks/20991124T120000Z-example-ffff/journal.json", journal_bytes(further))
    with pytest.raises(BrokenJournalError, match="copied or renamed"):
        find_run(elsewhere, run.store, "2099")


def test_a_run_that_let_the_application_in_again_is_in_nobodys_way(run: Running) -> None:
    with pytest.raises(Crash):
        run.go(fault=crash_at("swap", "recorded"))
    with pytest.raises(RecoveryError) as unfinished:
        refuse_unfinished(run.settings, run.store, (PLAN.runbook,), REPORT)
    assert unfinished.value.code is Code.RUN_UNFINISHED
    asked = Step(name="asked", does="ask whether all is well")
    journal = run.logbook.read()
    run.logbook.write(
        journal.model_copy(update={"plan": PLAN.model_copy(update={"steps": (*PLAN.steps, asked)})}), REPORT
    )
    with pytest.raises(Crash):
        run.go(fault=crash_at("asked", "begun"), asked=Action(action("asked")))
    refuse_unfinished(run.settings, run.store, (PLAN.runbook,), REPORT)


def test_a_run_goes_on_though_the_store_does_not_answer(run: Running) -> None:
    gone, report = replace(run.store, backend=replace(s3_of(run.store), bucket="gone")), Notes()
    done = carry_out(run.settings, gone, Logbook(run.logbook.directory, gone), ACTIONS, report, yes)
    assert done.state == "done"
    assert any("evidence.html is only in" in note for note in report.noted)


@pytest.mark.slow
def test_kill_9_in_the_middle_of_a_deed_loses_nothing_that_was_written_down(run: Running) -> None:
    script = f"""
import os
from pathlib import Path
from tmi_ops.progress import SilentReport
from tmi_ops.runbooks.execution import Action, carry_out
from tmi_ops.runbooks.logbook import Logbook
from tmi_ops_tests.runbooks.test_execution import ACTIONS, Seen, yes

def killed(work):
    work.remember(Seen(number=17))
    os.kill(os.getpid(), 9)

actions = {{**ACTIONS, "fence": Action(killed)}}
carry_out(None, None, Logbook(Path({str(run.logbook.directory)!r}), None), actions, SilentReport(), yes)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == KILLED
    journal = run.logbook.read()
    assert (journal.state, journal.done) == ("under way", ("look",))
    assert journal.known(Seen) == Seen(number=17)
    assert run.go().state == "done"
    assert run.lines() == list(NAMES)


def test_interrupted_in_a_step_it_says_where_and_what_the_application_is_spared(run: Running) -> None:
    def interrupted(_work: Work) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.go(fence=Action(interrupted))
    journal = run.logbook.read()
    assert (journal.state, journal.done) == ("stopped", ("look",))
    assert standing(journal) == "Steps done: look. The application may already be shut out."
    assert "tmi-ops recover back" in how_to_continue(journal)
    with pytest.raises(RecoveryError, match="1 of 5 steps done, fence failed"):
        refuse_unfinished(run.settings, run.store, (PLAN.runbook,), REPORT)
    with pytest.raises(KeyboardInterrupt):
        run.go(open=Action(interrupted))
    assert "recover back" not in how_to_continue(run.logbook.read()), "open has no way back"


def test_a_step_that_failed_before_any_other_is_not_called_done(run: Running) -> None:
    def fail(_work: Work) -> None:
        raise DatabaseError("It may not be shut.")

    with pytest.raises(RunbookError) as failed:
        run.go(look=Action(fail))
    assert failed.value.detail == "No step is done. The application and its data were not touched."
    refuse_unfinished(run.settings, run.store, (PLAN.runbook,), REPORT)


def test_a_deferred_step_holds_nothing_up_and_is_tried_again_when_the_run_is_resumed(run: Running) -> None:
    def later(_work: Work) -> None:
        raise DeferredError("It is away.", hint="later: type this")

    done = run.go(copy=Action(later))
    assert (done.state, done.pending, done.deferred) == ("done", ("copy",), ("copy",))
    assert done.left == ("It is away. To do it later: type this.",)
    assert run.lines() == ["look", "fence", "swap", "open"]
    refuse_unfinished(run.settings, run.store, (PLAN.runbook,), REPORT)
    assert run.go().left == ()
    assert run.lines() == ["look", "fence", "swap", "open", "copy"]
