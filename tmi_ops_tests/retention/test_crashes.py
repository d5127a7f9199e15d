"""Whatever the catalogue and wherever it is cut off: what was to stay restores."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tmi_ops.progress import SilentReport
from tmi_ops.retention.execution import execute_retention
from tmi_ops.retention.facts import Backup, RetentionFacts
from tmi_ops.retention.planning import plan_retention
from tmi_ops.settings import RetentionPolicy
from tmi_ops_tests.retention.catalogues import NOW, catalogues, stored, surviving
from tmi_ops_tests.retention.memory_s3 import CrashError

policies = st.builds(
    RetentionPolicy,
    last=st.integers(1, 3),
    daily=st.integers(0, 3),
    weekly=st.integers(0, 2),
    monthly=st.integers(0, 1),
    yearly=st.just(0),
    window=st.integers(1, 14).map(lambda days: timedelta(days=days)),
)


# Backups go in the first few deletions, WAL in the many after them.
crashes = st.integers(0, 25) | st.integers(0, 400)


@pytest.mark.slow
@settings(max_examples=400, deadline=None, derandomize=True)
@given(catalogues(), policies, crashes)
def test_a_crash_at_any_deletion_leaves_a_store_from_which_everything_that_was_to_stay_restores(
    known: RetentionFacts, policy: RetentionPolicy, crash_at: int
) -> None:
    s3 = stored(known)
    before = set(s3.objects)
    plan = plan_retention(known, policy, NOW)
    s3.deletions_left = crash_at
    with contextlib.suppress(CrashError):
        execute_retention(plan, s3.store(), SilentReport())
    after = set(s3.objects)

    _existing_backups_are_whole(known, before, after)
    for backup in _verified_newest(known) + [item for item in known.backups if item.hold]:
        assert _exists(backup, after), f"{backup.backup_id} is gone"
    if any(backup.verification == "proven" for backup in known.backups):
        _the_window_is_as_recoverable_as_before(known, policy.window, before, after)
    else:
        assert after == before


@settings(max_examples=60, deadline=None, derandomize=True)
@given(catalogues(), policies, crashes)
def test_a_second_run_after_a_crash_ends_where_an_uninterrupted_one_does(
    known: RetentionFacts, policy: RetentionPolicy, crash_at: int
) -> None:
    plan = plan_retention(known, policy, NOW)
    at_once, in_two = stored(known), stored(known)
    execute_retention(plan, at_once.store(), SilentReport())
    in_two.deletions_left = crash_at
    with contextlib.suppress(CrashError):
        execute_retention(plan, in_two.store(), SilentReport())
    in_two.deletions_left = None
    execute_retention(plan, in_two.store(), SilentReport())
    assert set(in_two.objects) == set(at_once.objects)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, derandomize=True)
@given(catalogues(), policies, crashes)
def test_a_plan_made_anew_after_a_crash_ends_there_too(
    known: RetentionFacts, policy: RetentionPolicy, crash_at: int
) -> None:
    at_once, in_two = stored(known), stored(known)
    execute_retention(plan_retention(known, policy, NOW), at_once.store(), SilentReport())
    in_two.deletions_left = crash_at
    with contextlib.suppress(CrashError):
        execute_retention(plan_retention(known, policy, NOW), in_two.store(), SilentReport())
    in_two.deletions_left = None
    rest = surviving(known, in_two)
    execute_retention(plan_retention(rest, policy, NOW), in_two.store(), SilentReport())
    assert set(in_two.objects) == set(at_once.objects)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(catalogues(), policies)
def test_planning_what_was_kept_removes_nothing_more(known: RetentionFacts, policy: RetentionPolicy) -> None:
    plan = plan_retention(known, policy, NOW)
    gone = {file.key for item in plan.wal for file in item.removed}
    rest = replace(
        known,
        backups=tuple(item.backup for item in plan.kept),
        wal=tuple(replace(wal, files=tuple(f for f in wal.files if f.key not in gone)) for wal in known.wal),
        half_made=(),
    )
    assert plan_retention(rest, policy, NOW).removes_nothing


def _exists(backup: Backup, keys: set[str]) -> bool:
    return f"{backup.kind}/{backup.backup_id}/manifest.json" in keys


def _existing_backups_are_whole(known: RetentionFacts, before: set[str], after: set[str]) -> None:
    """What has a manifest has all its objects, all it builds upon, and the WAL that makes it consistent."""
    by_id = {backup.backup_id: backup for backup in known.backups}
    for backup in known.backups:
        if not _exists(backup, after):
            continue
        folder = f"{backup.kind}/{backup.backup_id}/"
        assert {key for key in before if key.startswith(folder)} <= after
        assert all(_exists(by_id[link], after) for link in backup.chain)
        for wal in known.wal if backup.kind == "base" else ():
            own = [f for f in wal.files if f.timeline == backup.timeline and f.end > backup.start_lsn]
            assert all(file.key in after for file in own if file.start < backup.stop_lsn)


def _verified_newest(known: RetentionFacts) -> list[Backup]:
    newest: dict[str, Backup] = {}
    for backup in sorted(known.backups, key=lambda item: (item.taken_at, item.backup_id)):
        if backup.verification == "proven":
            newest[backup.subject] = backup
    return list(newest.values())


def _the_window_is_as_recoverable_as_before(
    known: RetentionFacts, window: timedelta, before: set[str], after: set[str]
) -> None:
    """Every WAL file written within the window, and the last before it: what led to its end must lead there now."""
    bases = [backup for backup in known.backups if backup.kind == "base" and backup.verification != "failed"]
    cutoff = NOW - window
    for wal in known.wal:
        older = [file for file in wal.files if file.stored_at < cutoff]
        wanted = [file for file in wal.files if file.stored_at >= cutoff]
        if older:
            last = max(older, key=lambda file: (file.stored_at, file.timeline))
            since = [base for base in bases if last.stored_at <= base.taken_at <= cutoff and _exists(base, after)]
            wanted += [] if since else [last]
        for file in wanted:
            place = (file.timeline, file.end, file.stored_at)
            if _reachable(known, bases, *place, before):
                assert _reachable(known, bases, *place, after), file


def _reachable(
    known: RetentionFacts, bases: list[Backup], timeline: int, lsn: int, at: datetime, keys: set[str]
) -> bool:
    """By brute force: is there a base with its chain, taken before, and every WAL file from it to here?"""
    files = known.wal[0].files
    line = known.wal[0].lines.get(timeline)
    fork = line.stretches[0].end if line else None
    for base in bases:
        on_line = base.timeline == timeline or (fork is not None and base.timeline == 1 and base.stop_lsn <= fork)
        if not (on_line and base.taken_at <= at and base.stop_lsn <= lsn and _exists(base, keys)):
            continue
        on_the_way = [file for file in files if base.start_lsn < file.end <= lsn]
        needed = [
            file.key
            for file in on_the_way
            if file.timeline == timeline
            or (fork is not None and file.timeline == 1 and file.start < fork and base.start_lsn < fork)
        ]
        if all(key in keys for key in needed):
            return True
    return False
