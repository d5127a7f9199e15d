"""Restores the cluster into its own directory, checks it, and keeps it if it is sound.

With a given moment, the base backups that lead to it are tried, the best first. Without one, candidates.py decides what
to try next. The result of each trial is recorded, so that a crash costs only one restore.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import AwareDatetime

from tmi_ops.drill.chain import Bound
from tmi_ops.drill.copy import running_cluster
from tmi_ops.drill.evidence import TITLES
from tmi_ops.drill.source import SourceReading, read_source
from tmi_ops.error_codes import Code
from tmi_ops.errors import DiskSpaceError, IntegrityError, ObjectMissingError, ProgramError, RecoveryError
from tmi_ops.postgres.programs import Programs, server_programs
from tmi_ops.postgres.unprivileged import ServerIdentity
from tmi_ops.postgres.wal_files import format_lsn, parse_lsn
from tmi_ops.recovery.point_in_time.confirmed import confirmed_plan
from tmi_ops.recovery.point_in_time.execution import Recovered, execute_recovery
from tmi_ops.recovery.point_in_time.facts import RecoveryFacts, read_facts
from tmi_ops.recovery.point_in_time.planning import RecoveryPlan
from tmi_ops.recovery.point_in_time.server import owner_of, run_as
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.runbooks.candidates import Candidate, Trial, best_of, next_candidate
from tmi_ops.runbooks.ends import base_ends, end_of_wal, gap_text
from tmi_ops.runbooks.execution import Action, Work
from tmi_ops.runbooks.journal import Answer
from tmi_ops.runbooks.plan import Fact
from tmi_ops.runbooks.questions import check_database, check_recovered, failed_checks
from tmi_ops.runbooks.steps.place import Claimed, Place, claim, clear, empty, holds_cluster, place_of
from tmi_ops.shadow.report import ShadowReport
from tmi_ops.shadow.takeover import take_shadow

NEXT_STEP = "name an earlier moment (--to-time), or exclude a bad base backup by verifying it: `tmi-ops drill`"

REACH = "Target reached"


class Moment(Fact):
    """A target as stored in the journal: one of these, or none for the end of the WAL."""

    time: AwareDatetime | None = None
    lsn: int | None = None
    name: str | None = None
    inclusive: bool = True

    @property
    def target(self) -> Target:
        return Target(self.time, self.lsn, self.name, self.inclusive)


class RecoverRequest(Fact):
    """What to recover.

    Args:
        moment: None: find the last good one.
        backup: id of the base backup to restore; None: the best.
        limit: how many restores may be tried.
        ask_source: compare what was recovered with the configured server.
        living: a live server can tell later steps what is lost.
        shadow: promote this machine's shadow instead of restoring.
    """

    system_identifier: str
    database: str
    place: Place
    moment: Moment | None = None
    backup: str | None = None
    limit: int = 8
    ask_source: bool = True
    living: bool = True
    shadow: bool = False


class Trials(Fact):
    """The trials so far."""

    trials: tuple[Trial, ...] = ()


class RecoveredCluster(Fact):
    """A sound cluster, stopped and on disk.

    Args:
        role: its superuser.
        lsn, last_commit_at: its position; `whole`: all archived WAL was replayed.
        missing: the WAL segment at which replay had to stop; empty if none is missing.
        timeline: its current timeline.
    """

    role: str
    major: int
    backup_id: str
    target: str
    lsn: str
    last_commit_at: AwareDatetime | None
    timeline: int
    whole: bool
    missing: str = ""


def request_of(work: Work) -> RecoverRequest:
    return RecoverRequest.model_validate(work.journal.plan.requests["recover"])


def cluster_programs(work: Work) -> Programs:
    return server_programs(work.known(RecoveredCluster).major, work.settings.pg_bindir, work.settings.copy_libraries)


def _recover(work: Work) -> None:
    request = request_of(work)
    if work.journal.known(RecoveredCluster) is not None and holds_cluster(work, request.place):
        work.say("It was already recovered before the run was cut off.")
        return
    work.forget(RecoveredCluster)
    claim(work, request.place)
    if request.shadow:
        take_over_shadow(work, request)
        return
    facts = read_facts(work.store, request.system_identifier)
    search = _Search(work, request, facts)
    if request.moment is not None:
        search.go_to(request.moment.target)
    else:
        search.look_for_the_last_good_moment()


def _clear(work: Work) -> None:
    clear(work, request_of(work).place)


def lost_cluster(work: Work) -> str:
    """Why the cluster must be recovered again on this machine; empty if it is here.

    Raises:
        RecoveryError: it is in service on another machine.
    """
    place, claimed = request_of(work).place, work.journal.known(Claimed)
    if holds_cluster(work, place):
        return ""
    where = f"The cluster was on {claimed.host} and" if claimed and claimed.host else "The cluster"
    if work.journal.last("connect") is None:
        return f"{where} is not on this machine ({place.directory})."
    told = claimed.host if claimed and claimed.host else "the machine where it is"
    run, runbook = work.journal.run_id, work.journal.plan.runbook
    raise RecoveryError(
        f"The recovered cluster is not on this machine ({place.directory}), and the application already has its "
        "connection.",
        detail=f"Nothing was done here; the server on {told} stays in service.",
        hint=f"continue there: `tmi-ops recover resume {run}`. If that machine is lost, undo the run (`tmi-ops recover "
        f"back {run}`) or, if that is refused, start a new one: `tmi-ops recover {runbook}`",
        code=Code.RUN_ELSEWHERE,
    )


def take_over_shadow(work: Work, request: RecoverRequest) -> None:
    """Promote the shadow and move it to the run's place. It has checked its own pages and relations; check the rest.

    Raises:
        RecoveryError: there is none, or it is not sound.
    """
    destination = place_of(request.place)
    handed = take_shadow(work.settings, work.store, destination.directory, work.report)
    if request.place.owner is not None:
        for directory in (destination.directory, destination.tablespace_root):
            if directory is not None and directory.exists():
                ServerIdentity(user=request.place.owner).take_over(directory)
    programs = server_programs(handed.seed.major, work.settings.pg_bindir, work.settings.copy_libraries)
    bound = Bound(lsn=parse_lsn(handed.lsn), reached_at=handed.report.commit_at)
    source = None
    if request.ask_source:
        source = read_source(work.settings.postgres, handed.seed.system_identifier, work.report)
    with running_cluster(destination, handed.seed.role, programs) as address:
        asked = check_database(address, request.database, source, bound)
    answers = (*_answers_of(handed.report), *(asked if source else _without_schema(asked)))
    why = failed_checks(answers)
    if why:
        raise RecoveryError(
            f"The shadow's cluster failed its checks: {why}",
            detail=f"It is stopped, in {destination.directory}.",
            hint="restore from backups instead: start a new run without --from-shadow",
            code=Code.NO_SOUND_MOMENT,
        )
    identity = owner_of(destination.directory, programs)
    run_as(identity, [programs.path("initdb"), "--sync-only", "--pgdata", destination.directory])
    for answer in answers:
        work.answer(answer)
    cluster = RecoveredCluster(
        role=handed.seed.role,
        major=handed.seed.major,
        backup_id=handed.seed.backup_id,
        target="the end of the WAL",
        lsn=handed.lsn,
        last_commit_at=handed.report.commit_at,
        timeline=handed.timeline,
        whole=handed.whole,
    )
    work.remember(cluster)
    if not request.living:
        work.answer(_reach(cluster, as_wanted=False))
    if handed.why:
        work.say(f"WAL could not be replayed to its end: {handed.why}")
    work.say(
        f"The shadow was promoted in {handed.promoted_s:.1f} s, {handed.waited_s:.1f} s after the request. It is at "
        f"LSN {handed.lsn}; last transaction: {_moment(handed.report.commit_at)}."
    )


def _answers_of(report: ShadowReport) -> tuple[Answer, ...]:
    """The results of the shadow's last checks, with their times."""
    return tuple(
        Answer(
            title=TITLES.get(one.name, one.name),  # type: ignore[call-overload]
            outcome=one.outcome,
            detail=f"By the shadow, at {one.at:%Y-%m-%d %H:%M:%S %Z}: {one.detail}",
            findings=one.findings,
        )
        for one in report.checks
        if one.name in ("page_checksums", "amcheck")
    )


class _Search:
    def __init__(self, work: Work, request: RecoverRequest, facts: RecoveryFacts) -> None:
        self._work, self._request, self._facts = work, request, facts
        self._destination = place_of(request.place)
        self._programs = server_programs(facts.server_major, work.settings.pg_bindir, work.settings.copy_libraries)
        self._source: SourceReading | None = None
        if request.ask_source:
            self._source = read_source(work.settings.postgres, facts.system_identifier, work.report)

    def go_to(self, target: Target) -> None:
        plan = self._plan(target, self._request.backup)
        bases = [plan.base.backup_id, *([] if self._request.backup else plan.earlier[: self._request.limit - 1])]
        why = ""
        for base in bases:
            why = self._try(self._plan(target, base))
            if not why:
                return
            self._work.say(f"From {base}: {why}")
        what = "The base backup does" if len(bases) == 1 else f"The {len(bases)} base backups do"
        raise RecoveryError(
            f"{what} not lead to a cluster that passes its checks: {why}", hint=NEXT_STEP, code=Code.NO_SOUND_MOMENT
        )

    def look_for_the_last_good_moment(self) -> None:
        bases, end = base_ends(self._facts, self._request.backup), end_of_wal(self._facts)
        trials = (self._work.journal.known(Trials) or Trials()).trials
        standing: Candidate | None = None
        while (candidate := next_candidate(bases, end, trials, self._request.limit)) is not None:
            trial = self._trial(candidate)
            standing = candidate if trial.outcome == "sound" else None
            trials = (*trials, trial)
            self._work.remember(Trials(trials=trials))
        best = best_of(trials)
        if best is None:
            why = trials[-1].why if trials else "the store has no usable base backup."
            raise RecoveryError(
                f"No good moment found in {len(trials)} restores: {why}", hint=NEXT_STEP, code=Code.NO_SOUND_MOMENT
            )
        if standing != best:
            why = self._try(self._plan(Target(lsn=best.lsn), best.base))
            if why:
                raise RecoveryError(
                    f"A candidate that passed its checks before failed them now: {why}",
                    hint=NEXT_STEP,
                    code=Code.NO_SOUND_MOMENT,
                )

    def _trial(self, candidate: Candidate) -> Trial:
        words = f"{candidate.base} to {'the end of the WAL' if candidate.lsn is None else format_lsn(candidate.lsn)}"
        try:
            plan = self._plan(Target(lsn=candidate.lsn), candidate.base)
        except RecoveryError as error:
            self._work.say(f"{words}: unreachable. {error.message}")
            return Trial(candidate=candidate, outcome="unreachable", why=error.message)
        why = self._try(plan)
        self._work.say(f"{words}: {why or 'sound.'}")
        return Trial(candidate=candidate, outcome="unsound" if why else "sound", why=why)

    def _plan(self, target: Target, base: str | None) -> RecoveryPlan:
        scratch = self._work.settings.home / "scratch"
        return confirmed_plan(
            self._work.store, self._facts, target, self._programs, scratch, self._work.report, base=base
        )

    def _try(self, plan: RecoveryPlan) -> str:
        """Restore and check. Returns why it is unsound; empty: it is sound and stays."""
        self._empty()
        work = self._work
        try:
            recovered = execute_recovery(work.settings, work.store, plan, self._destination, work.report)
        except (DiskSpaceError, ProgramError):
            raise
        except (RecoveryError, IntegrityError, ObjectMissingError) as error:
            return error.message
        answers = check_recovered(recovered, self._destination, self._programs, self._request.database, self._source)
        why = failed_checks(answers if self._source else _without_schema(answers))
        if why:
            self._empty()
            return why
        identity = owner_of(self._destination.directory, self._programs)
        run_as(identity, [self._programs.path("initdb"), "--sync-only", "--pgdata", self._destination.directory])
        for answer in answers:
            work.answer(answer)
        cluster = _cluster(recovered, self._programs)
        work.remember(cluster)
        if not self._request.living:
            work.answer(_reach(cluster, as_wanted=self._request.moment is not None))
        if plan.wal.goes_on:
            work.say(f"WAL cannot be replayed to its end: {gap_text(plan.wal)}")
        work.say(
            f"Recovered to LSN {format_lsn(recovered.lsn)}; last transaction: {_moment(recovered.last_commit_at)}."
        )
        return ""

    def _empty(self) -> None:
        empty(self._request.place)


def _without_schema(answers: tuple[Answer, ...]) -> tuple[Answer, ...]:
    """Without a live database to compare with, what the schema lacks may never have been there."""
    return tuple(one for one in answers if one.title not in (TITLES["schema"], TITLES["built_in_rows"]))


def _cluster(recovered: Recovered, programs: Programs) -> RecoveredCluster:
    plan = recovered.plan
    return RecoveredCluster(
        role=plan.base.superuser or plan.base.role,
        major=programs.major,
        backup_id=plan.base.backup_id,
        target=plan.target.describe(),
        lsn=format_lsn(recovered.lsn),
        last_commit_at=recovered.last_commit_at,
        timeline=recovered.timeline,
        whole=plan.to_the_end and not plan.wal.goes_on,
        missing=plan.wal.missing.name if plan.wal.missing else "",
    )


def _reach(cluster: RecoveredCluster, *, as_wanted: bool) -> Answer:
    """How far the cluster got, when there is no live server to compare with."""
    there = f"Last transaction: {_moment(cluster.last_commit_at)} (LSN {cluster.lsn})."
    if as_wanted:
        return Answer(title=REACH, outcome="passed", detail=f"Recovered to the requested target. {there}")
    if cluster.whole:
        return Answer(title=REACH, outcome="passed", detail=f"{there} Later commits were never archived.")
    hole = f" WAL segment {cluster.missing} is missing." if cluster.missing else ""
    return Answer(title=REACH, outcome="failed", detail=f"{there} Later commits are lost.{hole}")


def _moment(last_commit_at: datetime | None) -> str:
    return "none after the base backup" if last_commit_at is None else f"{last_commit_at:%Y-%m-%d %H:%M:%S %Z}"


RECOVER = Action(_recover, _clear, lost=lost_cluster)
