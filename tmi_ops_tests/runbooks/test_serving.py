"""What a cluster is told on its new machine, and what the application is told of it: decided without a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dotenv import dotenv_values
from pydantic import SecretStr

from tmi_ops.postgres.configuration import parse_settings
from tmi_ops.runbooks.serving.cluster import socket_directory
from tmi_ops.runbooks.serving.configuration import (
    Listening,
    access_lines,
    serving_configuration,
)
from tmi_ops.runbooks.serving.connection import (
    SecretManifest,
    connection_variables,
    read_connection,
    write_env_file,
    write_secret,
)
from tmi_ops.settings import PostgresSettings, load_settings

GIGABYTE = 1 << 30
LISTENING = Listening(5433, "localhost", ("10.0.0.0/8",), "/srv/data")
AWKWARD = 'it\'s a "pass\\word" with # and $HOME'
SOURCE = """
# a comment
port = 5432                     # where it was
shared_buffers = 64GB
work_mem = '32MB'
archive_mode = on
archive_command = 'push ''%p'' # not a comment'
ssl = on
ssl_cert_file = '/etc/ssl/server.crt'
synchronous_standby_names = 'tmi_ops'
shared_preload_libraries = 'pg_stat_statements'
Log_Min_Duration_Statement 250
"""


def test_behaviour_is_carried_over_and_what_is_of_another_machine_is_not() -> None:
    configuration = serving_configuration(parse_settings(SOURCE), {"max_connections": "300"}, LISTENING, 8 * GIGABYTE)
    settings = parse_settings("\n".join(configuration.lines))
    assert settings["work_mem"] == "'32MB'"
    assert settings["log_min_duration_statement"] == "250"
    assert settings["max_connections"] == "'300'"
    assert settings["shared_buffers"] == "'2048MB'", "a quarter of the memory, not more than there is"
    assert (settings["port"], settings["listen_addresses"]) == ("'5433'", "'localhost'")
    assert (settings["archive_mode"], settings["ssl"]) == ("'off'", "'off'")
    assert set(configuration.left_out) == {
        "port", "archive_mode", "archive_command", "ssl", "ssl_cert_file", "synchronous_standby_names",
        "shared_preload_libraries", "shared_buffers",
    }  # fmt: skip
    assert not {"archive_command", "synchronous_standby_names", "shared_preload_libraries"} & set(settings)


# What makes a server load, run, read, write or reach something, or wait for what is gone: up to PostgreSQL 18.
DANGEROUS = (
    "archive_cleanup_command", "archive_command", "archive_library", "archive_mode", "config_file",
    "data_directory", "dynamic_library_path", "extension_control_path", "external_pid_file", "hba_file",
    "ident_file", "include", "include_dir", "jit_provider", "krb_server_keyfile", "listen_addresses",
    "local_preload_libraries", "log_destination", "log_directory", "log_filename", "logging_collector",
    "oauth_validator_libraries", "port", "primary_conninfo", "primary_slot_name", "promote_trigger_file",
    "recovery_end_command", "recovery_target", "restore_command", "restrict_nonsystem_relation_kind", "search_path",
    "session_preload_libraries", "shared_preload_libraries", "ssl", "ssl_cert_file", "ssl_passphrase_command",
    "stats_temp_directory", "synchronized_standby_slots", "synchronous_standby_names", "temp_tablespaces",
    "default_tablespace", "unix_socket_directories", "allow_system_table_mods", "event_triggers",
    "session_replication_role", "ignore_system_indexes", "ignore_invalid_pages", "plperl.on_init",
    "auto_explain.log_min_duration", "a_setting_of_postgresql_30",
)  # fmt: skip


@pytest.mark.parametrize("name", DANGEROUS)
def test_the_attack_by_a_setting_in_the_backup_reaches_no_server(name: str) -> None:
    source = parse_settings(f"{name} = '/tmp/evil'\nwork_mem = 1MB\n")
    configuration = serving_configuration(source, {}, LISTENING, GIGABYTE)
    assert "/tmp/evil" not in "\n".join(configuration.lines)  # noqa: S108
    assert configuration.left_out == (name,)


@pytest.mark.parametrize("value", ["'/tmp/evil'", "'$libdir/evil'", "'a\\\\b'", "'`id`'"])
def test_a_harmless_setting_with_a_place_for_its_value_is_left_out_too(value: str) -> None:
    configuration = serving_configuration({"wal_sync_method": value}, {}, LISTENING, GIGABYTE)
    assert configuration.left_out == ("wal_sync_method",)


def test_later_settings_win_as_postgresql_reads_them() -> None:
    assert parse_settings("work_mem = 1MB\nWORK_MEM = '2MB'\n") == {"work_mem": "'2MB'"}


def test_nobody_is_let_in_without_a_password_but_the_servers_own_account() -> None:
    lines = access_lines(LISTENING, "postgres")
    assert lines[0] == 'local all "postgres" peer map=tmi_ops_owner'
    assert all(line.endswith("scram-sha-256") for line in lines[1:])
    assert any("10.0.0.0/8" in line for line in lines)


def test_an_env_file_keeps_its_other_lines_and_is_read_back_as_it_was_meant(tmp_path: Path) -> None:
    postgres = PostgresSettings(
        host="10.1.2.3", port=5433, user="tmi_app", password=SecretStr(AWKWARD), database="tmi", sslmode="prefer"
    )
    file = tmp_path / ".env.production"
    file.write_text("REDIS_HOST=cache\nPOSTGRES_HOST=old\nexport POSTGRES_PASSWORD=old\nTMI_DATABASE_URL=old\n")
    file.chmod(0o644)
    assert read_connection(tmp_path / "absent") is None
    for _ in range(2):
        write_env_file(file, connection_variables(postgres))
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_connection(file) == postgres
    values = dotenv_values(file)
    assert values["REDIS_HOST"] == "cache"
    assert file.read_text().count("POSTGRES_HOST=") == 1
    url = {"TMI_DATABASE_URL": values["TMI_DATABASE_URL"] or ""}
    assert load_settings(url, tmp_path / "nowhere").postgres == postgres


def test_a_secrets_manifest_is_for_its_owner_alone_and_holds_the_same(tmp_path: Path) -> None:
    file = tmp_path / "secret.yaml"
    variables = connection_variables(PostgresSettings(password=SecretStr(AWKWARD)))
    write_secret(SecretManifest(file, "tmi-database", "tmi"), variables)
    assert file.stat().st_mode & 0o777 == 0o600
    secret = json.loads(file.read_text())
    assert (secret["kind"], secret["metadata"]) == ("Secret", {"name": "tmi-database", "namespace": "tmi"})
    assert secret["stringData"] == variables


def test_a_socket_lies_in_the_data_directory_where_its_whole_name_fits_with_any_port() -> None:
    fits = Path(f"/{'d' * 91}")
    assert len(f"{fits}/.s.PGSQL.65535") == 107
    assert socket_directory(fits) == str(fits)
    assert socket_directory(Path(f"{fits}d")) == ""
