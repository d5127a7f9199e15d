"""A cluster is restored, continues, archives into the same store, and is restored again: timelines 2 to 4."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tmi_ops.backup.base import back_up_base
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.cluster import RunningCluster
from tmi_ops.postgres.wal_files import parse_segment_name
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.point_in_time.execution import Finish
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.settings import Settings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.wal.stored_file import store_once
from tmi_ops_tests.archiving import archive_wal
from tmi_ops_tests.recovery.point_in_time.conftest import Moment, Past, write
from tmi_ops_tests.recovery.point_in_time.restoring import copy_of_store, restore, rows, started, value


class Lives:
    """One life after the other, all archived into one store."""

    def __init__(self, past: Past, root: Path) -> None:
        self.settings = copy_of_store(past)
        self.store: ObjectStore = open_store(self.settings.store, self.settings.environment)
        self._past, self._root, self._count = past, root, 0

    def restore(self, target: Target, *, timeline: int | None = None, finish: Finish = "promote") -> Path:
        """Into another directory each time."""
        self._count += 1
        directory = self._root / f"life-{self._count}"
        restore(self.settings, target, directory, timeline=timeline, finish=finish)
        return directory

    @contextmanager
    def restored(self, target: Target, *, timeline: int | None = None) -> Iterator[RunningCluster]:
        """A restored cluster, running."""
        with started(self.restore(target, timeline=timeline), self._past.settings.postgres) as cluster:
            yield cluster

    def settings_of(self, cluster: RunningCluster) -> Settings:
        return self.settings.model_copy(update={"postgres": cluster.address})


@pytest.fixture
def lives(past: Past, directory: Path) -> Lives:
    return Lives(past, directory.parent)


@pytest.mark.slow
def test_a_cluster_restored_streamed_and_restored_again_three_times_over_keeps_every_life_apart(
    past: Past, lives: Lives
) -> None:
    # Timeline 2 leaves timeline 1 at `middle`: what timeline 1 had after that is not part of it.
    with lives.restored(Target(lsn=past.middle.lsn)) as cluster:
        assert rows(cluster.address) == past.middle.rows
        second = write(cluster.address, rows=2)
        archive_wal(cluster, lives.store)
        write(cluster.address, rows=5)
        archive_wal(cluster, lives.store)
    # Timeline 3 leaves timeline 2 at `second`; a base backup is taken on it.
    with lives.restored(Target(time=second.time)) as cluster:
        assert rows(cluster.address) == second.rows == past.middle.rows + 2
        third = write(cluster.address, rows=1)
        base = back_up_base(lives.settings_of(cluster), lives.store, SilentReport())
        write(cluster.address, rows=1)
        archive_wal(cluster, lives.store)
    assert base.timeline == 3
    # Timeline 4 begins at the end of timeline 3; its newest WAL is an open segment.
    with lives.restored(Target()) as cluster:
        assert rows(cluster.address) == third.rows + 1
        fourth = write(cluster.address, rows=2)
        archive_wal(cluster, lives.store, close_segment=False)
    with lives.restored(Target()) as cluster:
        assert rows(cluster.address) == fourth.rows == past.middle.rows + 2 + 1 + 1 + 2
    # Each earlier life can still be gone back to, and its later part, which the others do not have.
    with lives.restored(Target(), timeline=2) as cluster:
        assert rows(cluster.address) == second.rows + 5
    with lives.restored(Target(time=past.last.time), timeline=1) as cluster:
        assert rows(cluster.address) == past.last.rows
    _refuses_a_time_between_two_lives(past, lives, second)


def _refuses_a_time_between_two_lives(past: Past, lives: Lives, second: Moment) -> None:
    """At `late` timeline 1 was alive; the line to timeline 4 stood still from `middle` to the first commit of 2."""
    with pytest.raises(RecoveryError, match="lies between two timelines: timeline 1 was left") as caught:
        lives.restore(Target(time=past.last.time))
    assert "--timeline 1" in caught.value.hint
    assert second.time > past.last.time


@pytest.mark.slow
def test_a_promoted_cluster_that_has_archived_nothing_but_its_history_is_restored_as_it_was_promoted(
    past: Past, lives: Lives
) -> None:
    """What its parent's segment holds beyond the place where it was left must not be replayed. Nothing in the archive
    tells which of the two is meant, so a person is asked.
    """
    with lives.restored(Target(lsn=past.middle.lsn)) as cluster:
        history = cluster.directory / "pg_wal" / "00000002.history"
        store_once(lives.store, past.system_identifier, history.name, history.read_bytes(), None)
    with pytest.raises(RecoveryError, match="2 lines of this cluster live: timeline 1"):
        lives.restore(Target())
    with lives.restored(Target(), timeline=2) as cluster:
        assert rows(cluster.address) == past.middle.rows
        assert (cluster.directory / "pg_wal" / "00000003.history").exists()


@pytest.mark.slow
def test_a_cluster_that_waits_and_is_promoted_by_hand_begins_a_timeline_that_nobody_has(
    past: Past, lives: Lives
) -> None:
    """Timeline 2 has a history in the archive; of timeline 3 there is WAL only, and no id before 4 is free."""
    with lives.restored(Target(lsn=past.middle.lsn)) as cluster:
        history = cluster.directory / "pg_wal" / "00000002.history"
        store_once(lives.store, past.system_identifier, history.name, history.read_bytes(), None)
        segment = (cluster.directory / "pg_wal").glob("00000002????????????????")
        content = next(segment).read_bytes()
    _archive_without_history(lives.store, past.system_identifier, content)
    waiting = lives.restore(Target(lsn=past.early.lsn), timeline=1, finish="pause")
    with started(waiting, past.settings.postgres, {"hot_standby": "on"}) as cluster:
        assert value(cluster.address, "SELECT pg_promote()") is True
        assert (waiting / "pg_wal" / "00000004.history").exists()
        assert rows(cluster.address) == past.early.rows
    promoted = lives.restore(Target(lsn=past.early.lsn), timeline=1)
    assert (promoted / "pg_wal" / "00000004.history").exists()
    assert not (promoted / "pg_wal" / "00000003.history").exists(), "what stood in for a history is gone"


@pytest.mark.slow
def test_the_history_of_a_promoted_cluster_is_archived_once_archiving_is_switched_on(
    past: Past, lives: Lives, directory: Path
) -> None:
    promoted = lives.restore(Target(lsn=past.middle.lsn))
    taken = directory.parent / "taken"
    taken.mkdir()
    taken.chmod(0o777)
    archiving = {"archive_mode": "on", "archive_command": f"cp %p {taken}/%f"}
    with started(promoted, past.settings.postgres, archiving):
        deadline = time.monotonic() + 60
        while not (taken / "00000002.history").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert (taken / "00000002.history").exists()
    assert not (taken / "00000003.history").exists()


def _archive_without_history(store: ObjectStore, system_identifier: str, content: bytes) -> None:
    """A segment of timeline 3, as a server that archives by a command leaves it whose history was lost."""
    segment = parse_segment_name("000000030000000000000002")
    header = bytearray(content)
    header[4:8] = (3).to_bytes(4, "little")
    header[8:16] = segment.start.to_bytes(8, "little")
    store_once(store, system_identifier, segment.name, bytes(header), segment.end)
