"""A TMI with everything it has in production: a server, a cache, backups, archived WAL, and an application at work."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from tmi_ops.backup.base import back_up_base
from tmi_ops.cache.connection import connected
from tmi_ops.drill.heartbeat import beat
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import SilentReport
from tmi_ops.runbooks.application import HEALTH_URL, ROLES, VARIABLES
from tmi_ops.runbooks.catalogue import actions_for
from tmi_ops.runbooks.execution import Confirm, Fault, begin, carry_out, undo_run
from tmi_ops.runbooks.journal import Journal
from tmi_ops.runbooks.logbook import Logbook
from tmi_ops.runbooks.plan import Plan, Step
from tmi_ops.schema.migration import migrate
from tmi_ops.settings import OBJECTIVES, PostgresSettings, RedisSettings, Settings, StoreSettings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.wal.receiver import StreamOptions, catch_up_wal
from tmi_ops_tests.application import Application, running_application
from tmi_ops_tests.entering import let_everybody_enter
from tmi_ops_tests.house import House, house
from tmi_ops_tests.physical import set_parameter
from tmi_ops_tests.runbooks.crashes import Crash, crash_at, every_place
from tmi_ops_tests.variables import variables_of

REPORT = SilentReport()
APP_ROLE = "tmi_app"
DATABASE = "tmi"
# What a test does not change about an application stays out of its way.
NO_HOOKS = dict.fromkeys((*VARIABLES.values(), HEALTH_URL, ROLES), "")
_GRANTS = f"""
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {APP_ROLE};
GRANT SELECT, USAGE ON ALL SEQUENCES IN SCHEMA public TO {APP_ROLE};
"""


def yes(_journal: Journal, _step: Step) -> bool:
    return True


@dataclass
class Tmi:
    """`settings` are those of the server's superuser; `app_address` is the application's."""

    house: House
    settings: Settings
    store: ObjectStore
    app_address: PostgresSettings

    def archive(self) -> None:
        """Bring the WAL archive level with the server."""
        catch_up_wal(self.settings, self.store, REPORT, StreamOptions())

    def value(self, query: str, database: str = DATABASE) -> object:
        with connect(self.settings.postgres, database) as connection:
            row = connection.execute(query).fetchone()
        return row[0] if row else None

    def databases(self) -> set[str]:
        with connect(self.settings.postgres, "postgres") as connection:
            return {name for (name,) in connection.execute("SELECT datname FROM pg_database").fetchall()}

    def damage(self, table: str) -> None:
        """Overwrite a page of a table on the disk, as a failing one does; the server is restarted around it."""
        file = self.house.data / str(self.value(f"SELECT pg_relation_filepath('{table}')"))
        self.house.cluster.stop()
        content = bytearray(file.read_bytes())
        content[200:400] = b"\xa5" * 200
        file.write_bytes(content)
        self.house.restart()


@dataclass(frozen=True)
class Run:
    """One run of a runbook, by the code that CLI and Dagster use."""

    settings: Settings
    store: ObjectStore
    plan: Plan
    logbook: Logbook

    @classmethod
    def of(cls, settings: Settings, store: ObjectStore, plan: Plan) -> Run:
        return cls(settings, store, plan, begin(settings, store, plan, REPORT)[0])

    def go(self, confirm: Confirm = yes, fault: Fault | None = None) -> Journal:
        return carry_out(self.settings, self.store, self.logbook, actions_for(self.plan), REPORT, confirm, fault=fault)

    def crash_everywhere(self) -> int:
        """Crash at every place of the run, one after the other, going on each time; up to the last place.

        Returns:
            How often it crashed.
        """
        crashes = 0
        for place in every_place(step.name for step in self.plan.steps):
            try:
                self.go(fault=crash_at(*place))
            except Crash:
                crashes += 1
        return crashes

    def back(self) -> Journal:
        return undo_run(self.settings, self.store, self.logbook, actions_for(self.plan), REPORT)


@contextmanager
def a_tmi(
    root: Path,
    programs: Programs,
    store_settings: StoreSettings,
    redis: RedisSettings,
    *,
    by_archive_command: bool = False,
) -> Iterator[Tmi]:
    """TMI's schema, a role for the application, a slot, a base backup; for the length of a `with` block.

    Args:
        by_archive_command: there is no slot and no receiver: the server archives its WAL itself. Its account must
            reach our interpreter then, so `root` is to lie in a closed directory (see postgres/unprivileged.py).
    """
    if not by_archive_command:
        let_everybody_enter(root)
    with house(programs, root, {"archive_mode": "on"} if by_archive_command else None) as built:
        password = secrets.token_urlsafe(12)
        built.run(f"CREATE DATABASE {DATABASE}", f"CREATE ROLE {APP_ROLE} LOGIN PASSWORD '{password}'")
        postgres = built.address.model_copy(update={"database": DATABASE})
        migrate(postgres, REPORT)
        built.run(_GRANTS, database=DATABASE)
        settings = Settings(
            environment="development",
            postgres=postgres,
            redis=redis,
            store=store_settings,
            objectives=OBJECTIVES["development"],
            home=root / "home",
        )
        store = open_store(settings.store, settings.environment)
        app_address = postgres.model_copy(update={"user": APP_ROLE, "password": SecretStr(password)})
        tmi = Tmi(built, settings, store, app_address)
        beat(postgres)
        if by_archive_command:
            set_parameter(built.address, "archive_command", _archive_command(tmi))
        else:
            tmi.archive()
        back_up_base(settings, store, REPORT)
        try:
            yield tmi
        finally:
            with connected(redis) as client:
                client.flushdb()


def _archive_command(tmi: Tmi) -> str:
    """`tmi-ops wal push`, with settings that the server's account may read."""
    directory, owner = tmi.house.data.parent / "archiving", tmi.house.data.stat()
    directory.mkdir(mode=0o700)
    file = directory / ".env.development"
    file.touch(mode=0o600)
    variables = variables_of(tmi.settings)
    file.write_text("".join(f"{name}='{value}'\n" for name, value in variables.items() if name.isupper()))
    for path in (directory, file):
        os.chown(path, owner.st_uid, owner.st_gid)
    push = f"{sys.executable} -m tmi_ops.cli.main wal push --settings {directory} %p"
    return f"'env TMI_ENV=development {push}'"


@contextmanager
def at_work(tmi: Tmi, directory: Path) -> Iterator[Application]:
    """The application, writing."""
    directory.mkdir(exist_ok=True)
    with running_application(directory, postgres=tmi.app_address, redis=tmi.settings.redis) as application:
        application.wait_for_writes(20)
        yield application


def hooks_of(application: Application) -> dict[str, str]:
    """The variables by which a runbook stops, starts and asks the application."""
    return {
        **NO_HOOKS,
        VARIABLES["stop"]: application.stop_command,
        VARIABLES["start"]: application.start_command,
        HEALTH_URL: application.health_url,
    }
