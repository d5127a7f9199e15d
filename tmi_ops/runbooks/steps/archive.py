"""Archives the last WAL of a server that still answers, so that the last commits are recovered."""

from __future__ import annotations

import time
from typing import Any

import psycopg

from tmi_ops.errors import OpsError, RecoveryError
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.wal_files import format_lsn, parse_lsn, parse_segment_name, segment_at
from tmi_ops.runbooks.execution import Action, Work
from tmi_ops.runbooks.journal import Answer
from tmi_ops.runbooks.plan import Step
from tmi_ops.wal.lease import LeaseHeldError
from tmi_ops.wal.receiver import StreamOptions, catch_up_wal
from tmi_ops.wal.slot import read_our_server

TITLE = "WAL archived up to the fence"
# A running receiver stores the open segment every few seconds; archive_command is as fast as its store.
PATIENCE_S = 60.0
_LOOK_EVERY_S = 0.5
STEP = Step(name="archive", does="archive the server's last WAL, so that as little as possible is lost")


def _archive(work: Work) -> None:
    """A failure is reported and shown before anything irreversible; it does not stop the run."""
    try:
        reached = _bring_level(work)
    except OpsError as error:
        detail = f"The last commits may be lost: {error.message}"
        work.answer(Answer(title=TITLE, outcome="failed", detail=detail))
        work.say(f"The last WAL was not archived: {error.message}")
        return
    work.answer(Answer(title=TITLE, outcome="passed", detail=f"The archive has all WAL up to {reached}."))
    work.say(f"The archive has all WAL up to LSN {reached}.")


def _bring_level(work: Work) -> str:
    postgres = work.settings.postgres.model_copy(update={"database": "postgres"})
    settings = work.settings.model_copy(update={"postgres": postgres})
    facts = read_our_server(settings)
    if facts.slot is None:
        return _await_archiver(work)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            received = catch_up_wal(settings, work.store, work.report, StreamOptions())
        except LeaseHeldError as held:
            if held.lease is not None and held.lease.lsn and parse_lsn(held.lease.lsn) >= facts.lsn:
                return held.lease.lsn
            if time.monotonic() > deadline:
                raise
            time.sleep(_LOOK_EVERY_S)
        else:
            return received.lsn if received else format_lsn(facts.lsn)


def _await_archiver(work: Work) -> str:
    """Without our slot, archive_command may archive: switch to a new segment and wait for the old one."""
    with connect(work.settings.postgres, "postgres") as connection:
        row = connection.execute("SELECT current_setting('archive_mode') <> 'off'").fetchone()
        if not row or not row[0]:
            raise RecoveryError(
                "Nothing archives this server's WAL: it has no slot of tmi_ops, and archive_mode is off."
            )
        segment, lsn = _end_segment(connection)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            last = connection.execute("SELECT last_archived_wal FROM pg_stat_archiver").fetchone()
            if last and last[0] and last[0][:24] >= segment:
                return lsn
            time.sleep(_LOOK_EVERY_S)
    raise RecoveryError(f"archive_command did not archive {segment} within {PATIENCE_S:.0f} s.")


def _end_segment(connection: psycopg.Connection[Any]) -> tuple[str, str]:
    """The last segment to be archived, and the LSN up to which it has WAL.

    If nothing was written since the last switch, PostgreSQL does not switch and returns the start of the next segment,
    which it does not archive before something is written: so use the byte before that LSN.
    """
    row = connection.execute(
        """
        SELECT pg_switch_wal()::text, pg_walfile_name(pg_current_wal_lsn()), bytes_per_wal_segment
        FROM pg_control_init()
        """
    ).fetchone()
    if row is None:
        raise AssertionError
    lsn, name, size = row
    return segment_at(parse_segment_name(name, size).timeline, parse_lsn(lsn) - 1, size).name, lsn


ARCHIVE = Action(_archive)
