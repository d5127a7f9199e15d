"""The actions of the steps of `tmi-ops init`. Each can be repeated: it keeps what exists already."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from tmi_ops.adoption.state import read_protection
from tmi_ops.adoption.steps import StepName
from tmi_ops.errors import DatabaseError, RecoveryError
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.replication import connect_replication
from tmi_ops.postgres.wal_stream import identify
from tmi_ops.progress import Report
from tmi_ops.settings import Purpose, Settings
from tmi_ops.settings.env_file import write_values
from tmi_ops.store.objects import ObjectStore, make_place, open_store

POLL_S = 2.0
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Adoption:
    """Executes the steps.

    Attributes:
        read: reads the present settings, with the role for a purpose.
        variables: returns the variables that they are read from.
        env_file: the .env file.
        given: variables to write to it.
        patience_s: how long a refused connection is retried, in seconds.
    """

    read: Callable[[Purpose | None], Settings]
    variables: Callable[[], Mapping[str, str]]
    env_file: Path
    given: Mapping[str, str]
    patience_s: float
    report: Report

    def store(self) -> ObjectStore:
        settings = self.read(None)
        return open_store(settings.store, settings.environment)

    def do(self, name: StepName) -> str:
        """Execute a step.

        Returns: its result in a sentence.

        Raises:
            OpsError: it failed. Completed steps are kept, and another run continues from there.
        """
        actions: Mapping[StepName, Callable[[], str]] = {
            StepName.SETTINGS: self._write_settings,
            StepName.ROLES: self._create_roles,
            StepName.CONNECTION: self._connect,
            StepName.BUCKET: self._make_bucket,
            StepName.KEYS: self._make_keys,
            StepName.BASE: self._back_up_base,
            StepName.WAL: self._receive_wal,
            StepName.LOGICAL: self._back_up_logical,
            StepName.VERIFICATION: self._verify,
            StepName.DRILL: self._drill,
            StepName.UNITS: self._write_units,
        }
        return actions[name]()

    def _write_settings(self) -> str:
        changed = write_values(self.env_file, self.given)
        return f"{', '.join(changed) or 'nothing new'} written to {self.env_file}"

    def _create_roles(self) -> str:
        from tmi_ops.adoption.roles import PURPOSES, create_roles

        self._await(lambda: _log_in(self.read(Purpose.OWNER)))
        written = create_roles(self.read(Purpose.OWNER), self.variables(), self.report)
        write_values(self.env_file, written)
        names = " and ".join(written[purpose.user_variable] for purpose in PURPOSES.values())
        return f"{names}; their passwords are in {self.env_file}"

    def _connect(self) -> str:
        cluster = self._await(lambda: check_connection(self.read))
        where = self.read(Purpose.BACKUP).postgres.describe()
        return f"connected to {where}, and for replication to cluster {cluster}"

    def _await(self, connects: Callable[[], Answer]) -> Answer:
        """Try until it works or the patience ends; each new refusal is shown with what cures it."""
        deadline, told = time.monotonic() + self.patience_s, ""
        while True:
            try:
                return connects()
            except DatabaseError as refused:
                if time.monotonic() >= deadline:
                    raise
                said = f"{refused.message} {refused.hint}"
                if said != told:
                    self.report.note(f"{said}. Retrying ...")
                    told = said
            time.sleep(POLL_S)

    def _make_bucket(self) -> str:
        settings = self.read(None).store
        make_place(settings)
        self.store()
        return f"{settings.describe()} exists"

    def _make_keys(self) -> str:
        from tmi_ops.store.keys import kept_keys, make_keys
        from tmi_ops.store.recovery_sheet import write_sheet

        settings, now = self.read(None), datetime.now(UTC)
        directory = settings.home / "keys"
        # They exist if an earlier run stopped before it wrote their paths to the .env file.
        made = kept_keys(directory) or make_keys(directory, settings.environment, (), now)
        sheet = write_sheet(made, settings.environment, settings.store, now)
        write_values(
            self.env_file,
            {
                "TMI_OPS_AGE_RECIPIENTS": made.recipient,
                "TMI_OPS_AGE_IDENTITY_FILE": str(made.identity_file),
                "TMI_OPS_SIGNING_KEY_FILE": str(made.signing[0][1]),
                "TMI_OPS_TRUSTED_KEYS": str(made.trusted_file),
            },
        )
        return f"keys are in {made.directory}; print {sheet}, lock the paper away, then delete the file"

    def _back_up_base(self) -> str:
        from tmi_ops.backup.base import back_up_base

        return back_up_base(self.read(Purpose.BACKUP), self.store(), self.report).backup_id

    def _receive_wal(self) -> str:
        from tmi_ops.wal.receiver import StreamOptions, catch_up_wal

        received = catch_up_wal(self.read(Purpose.RECEIVER), self.store(), self.report, StreamOptions())
        return f"archived up to {received.lsn}" if received else "stopped before any WAL was received"

    def _back_up_logical(self) -> str:
        from tmi_ops.backup.logical import back_up_logical

        return back_up_logical(self.read(Purpose.BACKUP), self.store(), "custom", self.report).backup_id

    def _verify(self) -> str:
        from tmi_ops.recovery.verify import verify_backup
        from tmi_ops.store.catalogue import find_backup

        settings, store = self.read(Purpose.BACKUP), self.store()
        logical = read_protection(settings, store, check_connection(self.read)).logical
        verification = verify_backup(
            settings, store, find_backup(store, logical or "latest", settings.postgres.database), self.report
        ).verification
        if not verification.passed:
            raise RecoveryError(
                f"Verification of {verification.backup_id} failed: {verification.reasons[0]}",
                hint=f"tmi-ops verify {verification.backup_id}",
            )
        return f"{verification.backup_id} is verified: {verification.tables} tables, {verification.rows:,} rows"

    def _drill(self) -> str:
        from tmi_ops.drill.execution import run_drill
        from tmi_ops.drill.planning import prepare_drill
        from tmi_ops.recovery.point_in_time.target import Target
        from tmi_ops.text import format_duration

        settings, store = self.read(Purpose.BACKUP), self.store()
        evidence = run_drill(settings, store, prepare_drill(settings, store, self.report, target=Target()), self.report)
        drill = evidence.evidence
        if drill.outcome != "passed":
            raise RecoveryError(f"The drill {drill.drill_id} failed.", hint=f"tmi-ops drills {drill.drill_id}")
        return f"recovered and checked in {format_duration(drill.rto_seconds)}"

    def _write_units(self) -> str:
        from tmi_ops.adoption.services import units_for, write_units

        units = units_for(self.read(None), self.env_file.absolute().parent)
        write_units(units)
        return f"{', '.join(unit.file.name for unit in units)} in {units[0].file.parent}"


def _log_in(settings: Settings) -> None:
    with connect(settings.postgres):
        pass


def check_connection(read: Callable[[Purpose | None], Settings]) -> str:
    """Connect for backups and for replication.

    Returns: the server's system identifier.

    Raises:
        DatabaseError: a connection was refused.
    """
    _log_in(read(Purpose.BACKUP))
    with connect_replication(read(Purpose.RECEIVER).postgres) as connection:
        return identify(connection).system_identifier
