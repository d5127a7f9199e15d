"""A restored cluster starts and commits, but archives nowhere: which settings are set aside, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tmi_ops.recovery.point_in_time.left_settings import Machine, raised_settings, set_asides, shown

HERE = Machine(is_there=lambda _: True, has_library=lambda _: True, has_address=lambda _: True, memory=8 << 30)
NOT_HERE = replace(HERE, is_there=lambda _: False, has_library=lambda _: False, has_address=lambda _: False)


def now(source: Mapping[str, str], machine: Machine = HERE, needed: Mapping[str, str] | None = None) -> dict[str, str]:
    return {one.name: one.now for one in set_asides(source, needed or {}, machine, "/data", 0)}


def test_settings_that_reach_nowhere_stay_as_they_are() -> None:
    quiet = {
        "archive_mode": "off",
        "port": "5433",
        "listen_addresses": "'*'",
        "shared_preload_libraries": "'pg_stat_statements'",
        "shared_buffers": "1GB",
        "log_directory": "'log'",
        "max_connections": "200",
        "synchronous_standby_names": "''",
    }
    assert now(quiet, needed={"max_connections": "100", "max_wal_senders": "10"}) == {}


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("archive_mode", "on", "off"),
        ("archive_mode", "always", "off"),
        ("archive_command", "'push %p'", ""),
        ("archive_library", "'basic_archive'", ""),
        ("restore_command", "'get %f %p'", ""),
        ("archive_cleanup_command", "'clean'", ""),
        ("recovery_end_command", "'end'", ""),
        ("primary_conninfo", "'host=primary'", ""),
        ("primary_slot_name", "'slot'", ""),
        ("synchronous_standby_names", "'*'", ""),
        ("synchronized_standby_slots", "'slot'", ""),
        ("sync_replication_slots", "on", "off"),
        ("recovery_min_apply_delay", "'1d'", "0"),
        ("default_transaction_read_only", "on", "off"),
        ("external_pid_file", "'/run/main.pid'", ""),
        ("log_directory", "'/var/log/postgresql'", "log"),
        ("huge_pages", "on", "try"),
        ("shared_buffers", "'6GB'", "2048MB"),
    ],
)
def test_what_reaches_out_or_keeps_it_from_working_is_set_aside(name: str, value: str, instead: str) -> None:
    (found,) = set_asides({name: value}, {}, HERE, "/data", 0)
    assert (found.name, found.now) == (name, instead)
    assert found.before == value.strip("'")
    assert found.why


def test_what_this_machine_lacks_is_set_aside_and_what_it_has_stays() -> None:
    source = {
        "shared_preload_libraries": "'pg_stat_statements, nowhere'",
        "unix_socket_directories": "'/run/postgresql, @abstract'",
        "listen_addresses": "'10.1.2.3'",
        "hba_file": "'/etc/pg_hba.conf'",
        "ssl": "on",
        "stats_temp_directory": "'/run/stats'",
    }
    some = replace(NOT_HERE, has_library=lambda name: name == "pg_stat_statements")
    assert now(source, some) == {
        "hba_file": "/data/pg_hba.conf",
        "listen_addresses": "localhost",
        "shared_preload_libraries": "pg_stat_statements",
        "ssl": "off",
        "stats_temp_directory": "pg_stat_tmp",
        "unix_socket_directories": "@abstract",
    }
    assert now(source) == {}


def test_settings_raised_after_the_base_backup_are_raised_and_no_others() -> None:
    needed = {
        "max_connections": "300",
        "max_prepared_transactions": "10",
        "max_wal_senders": "10",
        "wal_level": "logical",
    }
    raised = raised_settings({"max_connections": "100", "max_wal_senders": "20"}, needed)
    assert {one.name: (one.before, one.now) for one in raised} == {
        "max_connections": ("100", "300"),
        "max_prepared_transactions": ("", "10"),
    }
    assert [one.now for one in raised_settings({"wal_level": "minimal"}, {"wal_level": "replica"})] == ["replica"]


def test_subscriptions_and_cron_jobs_do_not_begin_to_work_in_the_copy() -> None:
    found = set_asides({"shared_preload_libraries": "pg_cron"}, {}, HERE, "/data", 2)
    assert {one.name: one.now for one in found} == {
        "cron.launch_active_jobs": "off",
        "max_logical_replication_workers": "0",
    }


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("host=primary user=replica password=hunter2", "host=primary user=replica password=***"),
        ("host=primary password='two words' port=1", "host=primary password=*** port=1"),
        ("AWS_SECRET_ACCESS_KEY=abc/def push %p", "AWS_SECRET_ACCESS_KEY=*** push %p"),
        ("curl https://me:hunter2@host/x", "curl https://***@host/x"),
        ("push --token abcdef %p", "push --token *** %p"),
        ("red \x1b[31m\nline", "red ?[31m?line"),
        ("pgbackrest --stanza=main archive-push %p", "pgbackrest --stanza=main archive-push %p"),
    ],
)
def test_old_values_are_shown_without_secrets_and_control_characters(value: str, seen: str) -> None:
    assert shown(value) == seen
