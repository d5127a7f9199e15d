"""The last WAL of a server that still answers, brought into the archive, so that what was committed is recovered."""

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
# A receiver that is at work stores the open segment every few seconds; archive_command is as quick as its store.
PATIENCE_S = 60.0
_LOOK_EVERY_S = 0.5
STEP = Step(name="archive", does="bring the server's last WAL into the archive, so that the least is lost")


def _archive(work: Work) -> None:
    """What cannot be archived is said, and asked about before anything irreversible; it does not end the run."""
    try:
        reached = _bring_level(work)
    except OpsError as error:
        detail = f"What was committed last may be missing from what is recovered: {error.message}"
        work.answer(Answer(title=TITLE, outcome="failed", detail=detail))
        work.say(f"The archive was not brought level: {error.message}")
        return
    work.answer(Answer(title=TITLE, outcome="passed", detail=f"Everything that was committed, up to {reached}."))
    work.say(f"The archive holds everything up to LSN {reached}.")


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
    """Without a slot of ours archive_command may do it: have the open segment ended, and wait for it."""
    with connect(work.settings.postgres, "postgres") as connection:
        row = connection.execute("SELECT current_setting('archive_mode') <> 'off'").fetchone()
        if not row or not row[0]:
            raise RecoveryError("Nothing archives this server's WAL: there is neither our slot nor archive_mode.")
        segment, lsn = _end_segment(connection)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            last = connection.execute("SELECT last_archived_wal FROM pg_stat_archiver").fetchone()
            if last and last[0] and last[0][:24] >= segment:
                return lsn
            time.sleep(_LOOK_EVERY_S)
    raise RecoveryError(f"archive_command has not archived {segment} within {PATIENCE_S:.0f} s.")


def _end_segment(connection: psycopg.Connection[Any]) -> tuple[str, str]:
    """The name of the segment that is to be archived last, and the LSN up to which it holds WAL.

    Where nothing was written since a segment ended, PostgreSQL ends none, and answers with the beginning of the next
    one, which it will not archive before something is written: what counts is the byte before that LSN.
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
