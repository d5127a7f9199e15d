"""Copies of a source whose own settings could hurt: they start, commit, and touch nothing outside of themselves.

What a hostile or merely busy source sets: by ALTER SYSTEM, for a role, for a database, and as a login trigger.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tmi_ops.backup import restore_point
from tmi_ops.backup.base import back_up_base
from tmi_ops.backup.restore_point import create_restore_point
from tmi_ops.checks.finding import Outcome
from tmi_ops.drill.checks import check_relations
from tmi_ops.drill.copy import running_copy
from tmi_ops.errors import BackupError
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.shelter import session_options
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.point_in_time.destination import Destination
from tmi_ops.recovery.point_in_time.execution import Recovered, execute_recovery, recovered_cluster
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.settings import PostgresSettings, Settings, StoreSettings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops_tests.archiving import archive_wal
from tmi_ops_tests.physical import physical_cluster, settings_for
from tmi_ops_tests.recovery.point_in_time.conftest import KEEPS_WAL, own_store
from tmi_ops_tests.recovery.point_in_time.restoring import plan_to, started, value

pytestmark = pytest.mark.slow
SECRET = "a-password-of-the-source"
PREPARED = 7


def settings_that_hurt(outside: Path) -> dict[str, str]:
    return {
        "archive_mode": "on",
        "archive_command": f"touch {outside}/archived",
        "archive_cleanup_command": f"touch {outside}/cleaned",
        "recovery_end_command": f"touch {outside}/ended",
        "restore_command": f"touch {outside}/asked; false",
        "primary_conninfo": f"host={outside} password={SECRET}",
        "primary_slot_name": "its_slot",
        "synchronous_standby_names": "*",
        "recovery_min_apply_delay": "1d",
        "recovery_target_time": "2001-01-01 00:00:00+00",
        "port": "1",
        "listen_addresses": "192.0.2.1",
        "unix_socket_directories": f"{outside}/nowhere",
        "external_pid_file": f"{outside}/server.pid",
        "logging_collector": "on",
        "log_directory": f"{outside}",
        "ssl": "on",
        "ssl_cert_file": "nowhere.crt",
        "shared_preload_libraries": "nowhere",
        "session_preload_libraries": "nowhere",
        "local_preload_libraries": "nowhere",
        "hba_file": "/nowhere/pg_hba.conf",
        "ident_file": "/nowhere/pg_ident.conf",
        "default_transaction_read_only": "on",
        "statement_timeout": "1ms",
        "huge_pages": "on",
        "shared_buffers": "900GB",
        "max_connections": "12",
        "hot_standby": "off",
        "lc_messages": "xx_XX.nowhere",
        "wal_compression": "nonsense",
    }


@dataclass(frozen=True)
class Hostile:
    settings: Settings
    store: ObjectStore
    outside: Path


@pytest.fixture(scope="module")
def hostile(
    tmp_path_factory: pytest.TempPathFactory, programs: Programs, s3: StoreSettings, shared_bucket: str
) -> Iterator[Hostile]:
    root, outside = tmp_path_factory.mktemp("hostile"), tmp_path_factory.mktemp("outside")
    outside.chmod(0o777)
    raised = {"max_connections": "40", "max_prepared_transactions": str(PREPARED)}
    with physical_cluster(programs, root, {**KEEPS_WAL, **raised}) as cluster:
        settings = settings_for(cluster.address, own_store(s3, shared_bucket), root / "home")
        store = open_store(settings.store, settings.environment)
        with (cluster.directory / "postgresql.auto.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings_that_hurt(outside).items())
        with (cluster.directory / "postgresql.conf").open("a") as file:
            file.write(f"data_directory = '{outside}'\n")
        back_up_base(settings, store, SilentReport())
        ours = cluster.address.model_copy(update={"options": session_options(programs.major, superuser=True)})
        with connect(ours) as connection:
            connection.execute("SET synchronous_commit = on")
            connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 100) AS i")
            for whom in ("ROLE ALL", "DATABASE postgres", "DATABASE template1", f'ROLE "{cluster.address.user}"'):
                connection.execute(f"ALTER {whom} SET default_transaction_read_only = on")
                connection.execute(f"ALTER {whom} SET session_preload_libraries = 'nowhere'")
                connection.execute(f"ALTER {whom} SET statement_timeout = '1ms'")
            connection.execute(
                "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'nobody enters'; END $$"
            )
            at = "login" if programs.major >= 17 else "ddl_command_start"
            connection.execute(f"CREATE EVENT TRIGGER gate ON {at} EXECUTE FUNCTION refuse()")
            connection.execute("BEGIN")
            connection.execute("INSERT INTO kept VALUES (0)")
            connection.execute("PREPARE TRANSACTION 'left open'")
        early = settings.model_copy(update={"postgres": ours})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(restore_point, "ATTEMPTS", 1)
            with pytest.raises(BackupError, match="the prepared transaction left open") as caught:
                create_restore_point(early, store, "never", SilentReport())
            assert "ROLLBACK PREPARED 'left open'" in caught.value.hint
        archived = type(cluster)(ours, cluster.directory, cluster.process, cluster.guard)
        archive_wal(archived, store)
        yield Hostile(settings, store, outside)


def recover(hostile: Hostile, directory: Path, *, keep_settings: bool = False) -> Recovered:
    plan = plan_to(hostile.store, Target(), hostile.settings.home / "scratch")
    return execute_recovery(
        hostile.settings, hostile.store, plan, Destination(directory), SilentReport(), keep_settings=keep_settings
    )


def commits(address: PostgresSettings) -> None:
    with connect(address.model_copy(update={"database": "postgres"})) as connection:
        connection.execute("CREATE TEMPORARY TABLE ours (i int)")
        connection.execute("INSERT INTO kept VALUES (1000)")
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (101,)


def environment_of(process: int) -> set[str]:
    return {entry.split("=", 1)[0] for entry in Path(f"/proc/{process}/environ").read_text().split("\0") if entry}


def test_the_copy_of_a_drill_is_sheltered(
    hostile: Hostile, directory: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMI_OPS_S3_SECRET_ACCESS_KEY", SECRET)
    recovered = recover(hostile, directory, keep_settings=True)
    before = (directory / "postgresql.auto.conf").read_text()
    assert f"touch {hostile.outside}/archived" in before
    with running_copy(recovered, Destination(directory), replace(programs, libraries=("auto_explain",))) as address:
        assert value(address, "SHOW shared_preload_libraries") == "auto_explain"
        assert Path(address.host).is_dir()
        assert Path(address.host).stat().st_mode & 0o777 == 0o700
        assert value(address, "SHOW listen_addresses") == ""
        assert value(address, "SHOW archive_mode") == "off"
        commits(address)
        assert check_relations(address, programs).outcome is Outcome.OK
        server = int((directory / "postmaster.pid").read_text().splitlines()[0])
        assert "TMI_OPS_S3_SECRET_ACCESS_KEY" not in environment_of(server)
        if os.geteuid() == 0:
            assert Path(f"/proc/{server}").stat().st_uid != 0
    assert (directory / "postgresql.auto.conf").read_text() == before
    assert list(hostile.outside.iterdir()) == []


def test_the_past_of_a_rescue_is_sheltered(hostile: Hostile, directory: Path) -> None:
    plan = plan_to(hostile.store, Target(), hostile.settings.home / "scratch")
    with recovered_cluster(hostile.settings, hostile.store, plan, Destination(directory), SilentReport()) as cluster:
        commits(cluster.address)
    assert list(hostile.outside.iterdir()) == []


def test_what_a_restore_leaves_behind_starts_commits_and_archives_nowhere(
    hostile: Hostile, directory: Path, programs: Programs
) -> None:
    recovered = recover(hostile, directory)
    aside = {one.name: one for one in recovered.set_aside}
    assert recovered.amiss == ""
    assert {"archive_command", "synchronous_standby_names", "data_directory", "lc_messages"} <= set(aside)
    assert (aside["max_connections"].before, aside["max_connections"].now) == ("12", "40")
    assert aside["max_prepared_transactions"].now == str(PREPARED)
    assert not any(SECRET in one.describe() for one in recovered.set_aside)
    kept = directory / "postgresql.set-aside.conf"
    assert SECRET in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600
    session = session_options(programs.major, superuser=True)
    address = hostile.settings.postgres.model_copy(update={"options": session})
    with started(directory, address, bare=True) as cluster:
        commits(cluster.address)
        assert value(cluster.address, "SELECT gid FROM pg_prepared_xacts") == "left open"
        assert value(cluster.address, "SHOW archive_command") in ("", "(disabled)")
        assert value(cluster.address, "SHOW data_directory") == str(directory)
    assert list(hostile.outside.iterdir()) == []
