"""Clusters are restored to each kind of target, started, and their rows counted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path
from threading import Event

import pytest

from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.wal_files import format_lsn
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.point_in_time.destination import WORK_NAME, Destination
from tmi_ops.recovery.point_in_time.execution import execute_recovery, recovered_cluster
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.store.manifest import BaseManifest
from tmi_ops.store.objects import open_store
from tmi_ops.wal.lease import hold_lease
from tmi_ops_tests.physical import Progress
from tmi_ops_tests.raw_s3 import delete_raw
from tmi_ops_tests.recovery.point_in_time.conftest import PLAIN_ROLE, RESTORE_POINT, Past
from tmi_ops_tests.recovery.point_in_time.restoring import (
    copy_of_store,
    plan_to,
    restore,
    rows,
    started,
    value,
    wal_keys,
)

pytestmark = pytest.mark.slow


def ids(chain: Sequence[BaseManifest]) -> list[str]:
    return [base.backup_id for base in chain]


def test_latest_from_a_chain_holds_everything_up_to_the_open_segment_and_starts_on_its_own_configuration(
    past: Past, directory: Path
) -> None:
    report = Progress()
    store = open_store(past.settings.store, past.settings.environment)
    plan = plan_to(store, Target(), past.settings.home / "scratch")
    begun = time.monotonic()
    recovered = execute_recovery(past.settings, store, plan, Destination(directory), report)
    assert sum(recovered.phases.values()) == pytest.approx(time.monotonic() - begun, rel=0.25)
    assert ids(recovered.plan.chain) == ids(past.chain(past.full, past.incremental, past.second_incremental))
    assert (recovered.promoted, recovered.timeline, recovered.stopped) == (True, 2, "")
    assert past.last.lsn < recovered.lsn <= past.end
    assert recovered.restored_size > past.full.cluster_size / 2
    combining = {"combine"} if past.takes_increments else set()
    assert {"fetch", "extract", "check files", "replay", "sync"} | combining <= set(recovered.phases)
    assert report.done["replay"] > 0
    assert sorted(path.name for path in directory.iterdir() if path.name.startswith(WORK_NAME)) == []
    with started(directory, past.settings.postgres) as cluster:
        assert rows(cluster.address) == past.last.rows + 1
        assert value(cluster.address, "SELECT pg_is_in_recovery()") is False
        assert value(cluster.address, "SELECT count(*) FROM noise") == 3000


def test_a_time_between_two_commits_has_the_first_and_not_the_second(past: Past, directory: Path) -> None:
    recovered = restore(past.settings, Target(time=past.early.time), directory)
    assert ids(recovered.plan.chain) == ids((past.full,))
    assert "before commit of transaction" in recovered.stopped
    assert recovered.last_commit_at is not None
    assert recovered.last_commit_at < past.early.time
    with started(directory, past.settings.postgres) as cluster:
        assert rows(cluster.address) == past.early.rows


def test_an_lsn_is_reached_and_promoted_also_as_a_role_that_may_not_resume_the_replay(
    past: Past, directory: Path
) -> None:
    plan = plan_to(past.store, Target(lsn=past.middle.lsn), past.settings.home / "scratch")
    assert ids(plan.chain) == ids(past.chain(past.full, past.incremental))
    base = plan.base.model_copy(update={"superuser": None, "role": PLAIN_ROLE})
    plan = replace(plan, chain=(*plan.chain[:-1], base))
    recovered = execute_recovery(past.settings, past.store, plan, Destination(directory), SilentReport())
    assert recovered.promoted
    assert "after WAL location" in recovered.stopped
    assert recovered.lsn >= past.middle.lsn
    with started(directory, past.settings.postgres) as cluster:
        assert rows(cluster.address) == past.middle.rows


def test_a_restore_point_is_found_and_the_cluster_waits_there_after_a_restart_until_it_is_promoted(
    past: Past, directory: Path
) -> None:
    recovered = restore(past.settings, Target(name=RESTORE_POINT), directory, finish="pause")
    assert (recovered.promoted, recovered.timeline) == (False, 1)
    with started(directory, past.settings.postgres, {"hot_standby": "on"}) as cluster:
        assert rows(cluster.address) == past.middle.rows
        assert value(cluster.address, "SELECT pg_is_wal_replay_paused()") is True
        assert value(cluster.address, "SELECT pg_promote()") is True
        assert value(cluster.address, "SELECT pg_is_in_recovery()") is False
        assert rows(cluster.address) == past.middle.rows


def test_a_recovered_cluster_runs_for_a_look_and_is_gone_afterwards(past: Past, directory: Path) -> None:
    directory.mkdir()
    plan = plan_to(past.store, Target(time=past.last.time.astimezone(UTC)), past.settings.home / "scratch")
    with recovered_cluster(past.settings, past.store, plan, Destination(directory), SilentReport()) as cluster:
        in_postgres = cluster.address.model_copy(update={"database": "postgres"})
        assert rows(in_postgres) == past.last.rows
        assert cluster.recovered.promoted
    assert list(directory.iterdir()) == []


def test_the_end_of_the_wal_leaves_nothing_to_wait_for(past: Past, directory: Path) -> None:
    with pytest.raises(RecoveryError, match="no WAL beyond the target"):
        restore(past.settings, Target(), directory, finish="pause")
    assert not directory.exists()


def test_an_lsn_in_the_filling_of_the_last_segment_is_the_state_before_it(past: Past, directory: Path) -> None:
    """PostgreSQL finds no record there and says that the target was not reached, yet nothing before it is missing."""
    settings = copy_of_store(past)
    for segment in wal_keys(settings.store)[4:]:
        delete_raw(settings.store, segment)
    plan = plan_to(open_store(settings.store, settings.environment), Target(), settings.home / "scratch")
    recovered = restore(settings, Target(lsn=plan.wal.end - 1), directory)
    assert not recovered.plan.to_the_end
    assert recovered.lsn <= plan.wal.end
    with started(directory, past.settings.postgres) as cluster:
        assert rows(cluster.address) == past.late.rows


def test_a_time_after_the_last_commit_is_refused_before_anything_is_fetched(past: Past, directory: Path) -> None:
    late = past.last.time.replace(year=past.last.time.year + 1)
    with pytest.raises(RecoveryError, match="its last commit is at") as refused:
        restore(past.settings, Target(time=late), directory)
    assert refused.value.code is Code.TARGET_TOO_LATE
    assert not directory.exists()


def test_a_time_after_the_last_commit_is_reached_where_a_receiver_had_seen_the_archive_complete_later(
    past: Past, directory: Path
) -> None:
    settings = copy_of_store(past)
    store = open_store(settings.store, settings.environment)
    seen = {"timeline": 1, "lsn": format_lsn(past.end), "level_at": past.last.time + timedelta(hours=2)}
    with hold_lease(store, past.system_identifier, "tmi_ops", lambda: seen, stop=Event(), note=print):
        pass
    recovered = restore(settings, Target(time=past.last.time + timedelta(hours=1)), directory)
    assert recovered.plan.to_the_end
    with started(directory, past.settings.postgres) as cluster:
        assert rows(cluster.address) == past.last.rows + 1
