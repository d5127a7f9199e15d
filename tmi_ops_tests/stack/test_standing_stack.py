"""What a running stack looks like from outside: what it says, what it hides, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import psycopg
import pytest
import redis

from tmi_ops.postgres.connections import connect
from tmi_ops.settings import Settings, load_settings
from tmi_ops.stack.credentials import stack_credentials
from tmi_ops.stack.layout import StackLayout
from tmi_ops_tests.stack.conftest import CommandLine

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(standing: CommandLine) -> Settings:
    return load_settings({"TMI_OPS_HOME": str(standing.home)}, standing.directory)


def secrets_of(home: Path) -> list[str]:
    credentials = stack_credentials(StackLayout(home).credentials)
    return [getattr(credentials, name).get_secret_value() for name in credentials.__dataclass_fields__]


def test_settings_find_a_database_a_cache_and_a_bucket_without_being_told(settings: Settings) -> None:
    assert settings.uses_embedded_stack
    with connect(settings.postgres, "postgres") as connection:
        row = connection.execute("SELECT current_setting('server_version_num')::int / 10000").fetchone()
    assert row == (17,)
    assert settings.redis.password is not None
    with redis.Redis(
        host=settings.redis.host, port=settings.redis.port, password=settings.redis.password.get_secret_value()
    ) as client:
        assert client.ping()
    store = settings.store
    assert store.access_key_id is not None
    assert store.secret_access_key is not None
    s3 = boto3.client(
        "s3",
        endpoint_url=store.endpoint_url,
        region_name=store.region,
        aws_access_key_id=store.access_key_id.get_secret_value(),
        aws_secret_access_key=store.secret_access_key.get_secret_value(),
    )
    s3.put_object(Bucket=store.bucket, Key="probe", Body=b"written")
    assert s3.get_object(Bucket=store.bucket, Key="probe")["Body"].read() == b"written"


def test_the_database_is_ready_for_physical_and_incremental_backups_over_the_replication_protocol(
    settings: Settings,
) -> None:
    assert settings.postgres.password is not None
    with connect(settings.postgres, "postgres") as connection:
        rows = connection.execute(
            "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)",
            [["wal_level", "summarize_wal", "max_wal_senders", "password_encryption", "data_checksums"]],
        ).fetchall()
    assert dict(rows) == {
        "wal_level": "replica",
        "summarize_wal": "on",
        "max_wal_senders": "10",
        "password_encryption": "scram-sha-256",
        "data_checksums": "on",
    }
    replication = psycopg.pq.PGconn.connect(
        f"host=127.0.0.1 port={settings.postgres.port} user={settings.postgres.user} "
        f"password={settings.postgres.password.get_secret_value()} replication=true".encode()
    )
    assert replication.status == psycopg.pq.ConnStatus.OK
    assert replication.exec_(b"IDENTIFY_SYSTEM").status == psycopg.pq.ExecStatus.TUPLES_OK
    replication.finish()


def test_a_wrong_password_opens_none_of_the_servers(settings: Settings) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"host=127.0.0.1 port={settings.postgres.port} user=postgres password=wrong dbname=postgres")
    with (
        pytest.raises(redis.AuthenticationError),
        redis.Redis(host=settings.redis.host, port=settings.redis.port, password="wrong") as client,
    ):
        client.ping()


def open_to_others(directory: Path) -> list[str]:
    """What somebody else could read, change or list from `directory` down. What he cannot enter hides all below it."""
    if directory.stat().st_mode & 0o077 == 0:
        return []
    found = [f"{directory} can be listed or changed"] if directory.stat().st_mode & 0o066 else []
    for path in directory.iterdir():
        if path.is_dir():
            found += open_to_others(path)
        elif path.lstat().st_mode & 0o077:
            found.append(f"{path} {path.lstat().st_mode & 0o777:o}")
    return found


def test_nobody_but_the_owner_can_read_or_change_anything_of_the_stack(standing: CommandLine) -> None:
    assert open_to_others(standing.home) == []
    assert open_to_others(standing.home / "stack") == []
    for name in ("stack.env", "stack/credentials.json", "stack/state.json", "stack/ports.json"):
        assert (standing.home / name).stat().st_mode & 0o777 == 0o600


def test_no_secret_shows_in_argv_in_logs_or_in_what_status_prints(standing: CommandLine) -> None:
    argv = "\n".join(standing.processes().values())
    logs = "\n".join(log.read_text(errors="replace") for log in StackLayout(standing.home).logs.glob("*.log"))
    shown = standing.run("stack", "status").stdout + standing.run("stack", "status", "--json").stdout
    settings_shown = standing.run("settings").stdout
    assert "postgres -D" in argv
    assert "mini" in argv
    for secret in secrets_of(standing.home):
        for text in (argv, logs, shown, settings_shown):
            assert secret not in text


def test_status_names_every_server_and_where_it_answers(standing: CommandLine) -> None:
    state = json.loads(standing.run("stack", "status", "--json").stdout)
    shown = standing.run("stack", "status")
    assert shown.returncode == 0
    assert {service["name"] for service in state["services"]} == {"postgres", "seaweedfs", "valkey"}
    for service in state["services"]:
        assert service["condition"] == "running"
        assert service["name"] in shown.stdout
        assert service["address"] in shown.stdout


@pytest.mark.parametrize("options", [(), ("--detach",)], ids=["foreground", "detached"])
def test_a_second_up_says_that_it_is_running_and_changes_nothing(
    standing: CommandLine, options: tuple[str, ...]
) -> None:
    before = standing.processes()
    second = standing.run("up", "--no-dagster", *options)
    assert second.returncode == 0
    assert "already running" in second.stdout
    assert standing.processes() == before


def test_plain_dagster_finds_its_own_records_through_stack_env(standing: CommandLine) -> None:
    exports = standing.run("stack", "env").stdout
    state = json.loads(standing.run("stack", "status", "--json").stdout)
    assert f"export DAGSTER_HOME={standing.home}/dagster\n" in exports
    assert f"export DAGSTER_PG_PORT={state['ports']['dagster_postgres']}\n" in exports
    assert str(state["ports"]["postgres"]) not in exports


def test_reset_without_a_yes_destroys_nothing(standing: CommandLine) -> None:
    before = standing.processes()
    asked = standing.run("stack", "reset", stdin="n\n")
    assert asked.returncode == 130
    assert "ALL BACKUPS" in asked.stdout
    assert "nothing was changed" in asked.stderr
    assert standing.processes() == before
