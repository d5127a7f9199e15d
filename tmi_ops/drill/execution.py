"""Runs a drill: recovers a plan on this machine as in an emergency, checks the copy, and stores the evidence. The copy
is always removed.

A fault of the store or the backup is a failed drill with evidence. A fault of this machine (no disk space, no programs)
is an error without evidence, because it says nothing about the backup.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from tmi_ops.checks.finding import Answer, unknown
from tmi_ops.drill.account import Account, evidence_of, verification_of
from tmi_ops.drill.checks import (
    bound_of,
    check_built_in_rows,
    check_fingerprints,
    check_heartbeat,
    check_own,
    check_relations,
    check_schema,
)
from tmi_ops.drill.copy import check_pages, running_copy
from tmi_ops.drill.evidence import TITLES, Check, CheckName, Copy, Evidence, record_evidence
from tmi_ops.drill.findings import STORED, answer_to, failed, said
from tmi_ops.drill.page import evidence_page
from tmi_ops.drill.planning import DrillPlan
from tmi_ops.drill.scratch import drill_directory
from tmi_ops.drill.source import SchemaReading, read_schema, read_source
from tmi_ops.errors import DiskSpaceError, IntegrityError, ObjectMissingError, OpsError, ProgramError, RecoveryError
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.wal_files import format_lsn
from tmi_ops.progress import Report
from tmi_ops.recovery.point_in_time.base_files import UnusableBaseError
from tmi_ops.recovery.point_in_time.destination import Destination, disk_needed
from tmi_ops.recovery.point_in_time.execution import PLAN, Recovered, execute_recovery
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.store.backup_documents import record_verification
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.restore_points import read_restore_point

VERIFY, START = "verify", "start"
_OF_THE_DATABASE: tuple[CheckName, ...] = ("schema", "built_in_rows", "heartbeat")


@dataclass(frozen=True)
class Drill:
    """A finished drill, and the key of its page."""

    evidence: Evidence
    page_key: str


def run_drill(settings: Settings, store: ObjectStore, plan: DrillPlan, report: Report) -> Drill:
    """Recover to the plan's target, check the copy, and store the evidence.

    If the copy is sound, its backup is marked as verified. A backup whose own bytes are damaged is marked as failed,
    and no later recovery starts from it.

    Raises:
        DiskSpaceError: there is too little disk space here. No evidence is stored.
        ProgramError: programs of the source's version are missing here. No evidence is stored.
        StoreError: the store does not answer. No evidence is stored.
    """
    drilling = _Drilling(settings, store, plan, report)
    with drill_directory(settings.home / "scratch") as directory:
        drilling.carry_out(Destination(directory / "data", tablespace_root=directory / "tablespaces"))
    evidence = evidence_of(drilling.found, plan, settings)
    key = record_evidence(store, evidence, evidence_page(evidence))
    verification = verification_of(drilling.found, plan, evidence)
    if verification is not None:
        record_verification(store, verification)
    return Drill(evidence, key)


@dataclass
class _Drilling:
    """A drill in progress."""

    settings: Settings
    store: ObjectStore
    plan: DrillPlan
    report: Report
    found: Account = field(default_factory=Account)

    def carry_out(self, destination: Destination) -> None:
        """Recover and check; a fault of the backup becomes a failed check."""
        self.found.disk_needed = sum(disk_needed(self.plan.recovery, destination, self.store).values())
        self.found.phases[PLAN] = self.plan.planning_seconds
        begun = time.monotonic()
        try:
            recovered = execute_recovery(self.settings, self.store, self.plan.recovery, destination, self.report)
        except (DiskSpaceError, ProgramError):
            raise
        except (RecoveryError, IntegrityError, ObjectMissingError) as error:
            self.found.phases["recovery"] = self.found.recovery_seconds = time.monotonic() - begun
            self.found.unusable = error if isinstance(error, UnusableBaseError) else None
            self.found.checks["recovery"] = Check(
                name="recovery", outcome="failed", detail=error.message, seconds=self.found.recovery_seconds
            )
            return
        self.found.phases |= recovered.phases
        self._judge(recovered, destination)

    def _judge(self, recovered: Recovered, destination: Destination) -> None:
        self.found.copy = _copy(recovered, None)
        self.found.checks["recovery"] = Check(
            name="recovery",
            outcome="passed",
            detail=_describe_reached(recovered),
            findings=recovered.notes,
            seconds=sum(self.found.phases.values()),
        )
        programs = self.plan.programs
        with self._timed(VERIFY):
            self._ask("page_checksums", lambda: check_pages(recovered, programs))
        with ExitStack() as running:
            try:
                with self._timed(START):
                    address = running.enter_context(running_copy(recovered, destination, programs))
            except RecoveryError as error:
                self.found.checks["recovery"] = Check(name="recovery", outcome="failed", detail=error.message)
                return
            self.found.recovery_seconds = sum(spent for phase, spent in self.found.phases.items() if phase != VERIFY)
            # Pages were checked before the start; the evidence lists all verification last.
            self.found.phases[VERIFY] = self.found.phases.pop(VERIFY)
            with self._timed(VERIFY):
                self._ask_running(recovered, address)

    def _ask_running(self, recovered: Recovered, address: PostgresSettings) -> None:
        self._ask("amcheck", lambda: check_relations(address, self.plan.programs))
        database = address.model_copy(update={"database": self.settings.postgres.database})
        absent = self._absent_database(address)
        if absent is not None:
            for check in _OF_THE_DATABASE:
                self._ask(check, lambda: absent)
        else:
            self._ask_database(recovered, database)
        name = recovered.plan.target.name
        point = read_restore_point(self.store, name) if name is not None else None
        self._ask("fingerprints", lambda: check_fingerprints(address, recovered, point, self.report))

    def _ask_database(self, recovered: Recovered, database: PostgresSettings) -> None:
        begun = time.monotonic()
        source = read_source(self.settings.postgres, recovered.plan.base.system_identifier, self.report)
        try:
            copy = read_schema(database)
        except OpsError as error:
            unreadable = failed(error.message)
            self._ask("schema", lambda: unreadable, time.monotonic() - begun)
            self._ask("built_in_rows", lambda: unknown("The schema could not be read."))
        else:
            self.found.copy = _copy(recovered, copy)
            source_schema = source.schema if source else None
            self._ask("schema", lambda: check_schema(copy, source_schema), time.monotonic() - begun)
            self._ask("built_in_rows", lambda: check_built_in_rows(copy, source_schema))
        known = source.beats if source else None
        self._ask("heartbeat", lambda: check_heartbeat(database, bound_of(recovered), known))
        if checks := self.settings.profile.checks:
            self._ask("own_checks", lambda: check_own(database, checks, self.plan.programs, self.settings.postgres))

    def _absent_database(self, address: PostgresSettings) -> Answer | None:
        name = self.settings.postgres.database
        with connect(address) as connection:
            found = connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).fetchone()
        return None if found is not None else failed(f"The copy has no database {name}.")

    def _ask(self, name: CheckName, question: Callable[[], Answer], spent: float = 0.0) -> None:
        begun = time.monotonic()
        with self.report.phase(TITLES[name], total=1, unit="steps") as phase:
            found = answer_to(question)
            phase.advance(1)
        self.found.checks[name] = Check(
            name=name,
            outcome=STORED[found.outcome],
            detail=found.seen,
            findings=said(found),
            seconds=spent + time.monotonic() - begun,
        )

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self.found.phases[phase] = self.found.phases.get(phase, 0.0) + time.monotonic() - begun


def _copy(recovered: Recovered, schema: SchemaReading | None) -> Copy:
    return Copy(
        lsn=format_lsn(recovered.lsn),
        last_commit_at=recovered.last_commit_at,
        stopped=recovered.stopped,
        timeline=recovered.timeline,
        restored_size=recovered.restored_size,
        replayed_size=recovered.replayed_size,
        rows=dict(schema.validation.tables) if schema else {},
        estimated=schema.validation.estimated if schema else (),
    )


def _describe_reached(recovered: Recovered) -> str:
    where = f"Recovered to LSN {format_lsn(recovered.lsn)} on timeline {recovered.timeline}"
    if recovered.stopped:
        return f"{where}: the server stopped {recovered.stopped}."
    return f"{where}: nothing in the archive follows it."
