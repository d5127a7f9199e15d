"""Practises a promotion on a copy, and measures it. The shadow itself continues."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tmi_ops.checks.finding import Answer
from tmi_ops.drill.chain import Bound
from tmi_ops.drill.checks import check_heartbeat
from tmi_ops.drill.findings import answer_to
from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.programs import server_programs
from tmi_ops.progress import Report
from tmi_ops.recovery.point_in_time.server import owner_of
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.shadow.files import copy_files
from tmi_ops.shadow.place import Practice, ask, destination_in, is_running, only_one, write_practice
from tmi_ops.shadow.server import ShadowServer, shadow_server
from tmi_ops.shadow.takeover import require_shadow

COPIED_WITHIN_S, READABLE_WITHIN_S = 3600.0, 600.0
LOOK_EVERY_S = 0.1


@dataclass(frozen=True)
class Practised:
    """The measured promotion, and the heartbeat check of the promoted copy."""

    practice: Practice
    heartbeat: Answer


def practise(settings: Settings, report: Report) -> Practised:
    """Copy the shadow's files, promote the copy, check its heartbeat chain, and store how long that took.

    Raises:
        RecoveryError: there is no shadow, or its copy does not start.
        DiskSpaceError: there is too little disk space for a copy.
    """
    seed = require_shadow(settings)
    scratch = settings.home / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="practice-", dir=scratch) as name:
        directory = Path(name)
        directory.chmod(0o755)
        with report.phase("copy the shadow", total=1, unit="steps") as phase:
            if is_running(settings):
                ask(settings, "copy", directory, COPIED_WITHIN_S)
            else:
                with only_one(settings):
                    copy_files(settings, name)
            phase.advance(1)
        destination = destination_in(directory)
        programs = server_programs(seed.major, settings.pg_bindir, settings.copy_libraries)
        identity = owner_of(destination.directory, programs, together=True)
        parameters = {"restore_command": "false", "fsync": "off", "recovery_target_timeline": "latest"}
        with (
            report.phase("promote the copy", total=1, unit="steps") as phase,
            shadow_server(programs, destination, identity, seed, parameters) as server,
        ):
            _until(lambda: server.look() is not None, server)
            begun = time.monotonic()
            _, promoted = server.promote()
            heartbeat = answer_to(lambda: _chain(server.address, settings.postgres.database))
            answered = time.monotonic() - begun
            phase.advance(1)
    practice = Practice(at=datetime.now(UTC), promote_s=promoted, answered_s=answered)
    write_practice(settings, practice)
    return Practised(practice, heartbeat)


def _chain(address: PostgresSettings, database: str) -> Answer:
    return check_heartbeat(address.model_copy(update={"database": database}), Bound(), None)


def _until(reached: Callable[[], bool], server: ShadowServer) -> None:
    deadline = time.monotonic() + READABLE_WITHIN_S
    while not reached():
        if server.ended is not None or time.monotonic() > deadline:
            server.log.read()
            raise RecoveryError(
                f"The copy of the shadow did not start: {server.log.last_messages}.", code=Code.SHADOW_FAILED
            )
        time.sleep(LOOK_EVERY_S)
