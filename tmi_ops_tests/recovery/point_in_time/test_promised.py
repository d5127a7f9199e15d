"""A plan names only WAL that is in the bucket, regardless of the archive's index."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cost.history import CLUSTER, write_backups, write_wal
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.wal_files import DEFAULT_SEGMENT_SIZE, Segment
from tmi_ops.progress import SilentReport
from tmi_ops.recovery.point_in_time.confirmed import are_there, confirmed_plan
from tmi_ops.recovery.point_in_time.facts import read_facts
from tmi_ops.recovery.point_in_time.planning import plan_recovery
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.settings import StoreSettings
from tmi_ops.store.objects import open_store
from tmi_ops.wal.archive import list_wal
from tmi_ops.wal.coverage import WalFile
from tmi_ops.wal.index import LONG_TAIL
from tmi_ops.wal.layout import file_key


def test_an_open_segment_is_there_in_pieces_and_one_is_not_there_by_its_backups_history(
    store_settings: StoreSettings,
) -> None:
    store = open_store(store_settings, "development")
    whole, gone, newest = (Segment(1, number * DEFAULT_SEGMENT_SIZE, DEFAULT_SEGMENT_SIZE) for number in (1, 2, 3))
    store.put_bytes(file_key(CLUSTER, whole.name), b"x")
    store.put_bytes(file_key(CLUSTER, f"{gone.name}.00000028.backup"), b"x")
    store.put_bytes(file_key(CLUSTER, f"{newest.name}.partial.00001000"), b"x")
    open_one = WalFile(newest, f"{newest.name}.partial")
    assert are_there(store, CLUSTER, [WalFile(whole, whole.name), open_one])
    assert not are_there(store, CLUSTER, [WalFile(whole, whole.name), WalFile(gone, gone.name), open_one])


def test_a_segment_that_somebody_removed_ends_the_plan_though_the_index_names_it(
    store_settings: StoreSettings, programs: Programs, tmp_path: Path
) -> None:
    store, count = open_store(store_settings, "development"), LONG_TAIL + 10
    write_backups(store, 1, segments=1)
    write_wal(store, count)
    list_wal(store, CLUSTER)
    lost = Segment(1, 100 * DEFAULT_SEGMENT_SIZE, DEFAULT_SEGMENT_SIZE)
    whole = confirmed_plan(store, read_facts(store), Target(), programs, tmp_path, SilentReport())
    assert (whole.wal.missing, len(whole.wal.files)) == (None, count - 1)
    store.delete([file_key(CLUSTER, lost.name)])
    believing = read_facts(store)
    assert believing.archive.ends == {1: count * DEFAULT_SEGMENT_SIZE}
    assert plan_recovery(believing, Target()).wal.missing is None
    with pytest.raises(RecoveryError, match=f"has a gap: {lost.name} is missing"):
        confirmed_plan(store, believing, Target(), programs, tmp_path, SilentReport())
    with_less = confirmed_plan(store, believing, Target(lsn=lost.start), programs, tmp_path, SilentReport())
    assert with_less.wal.end == lost.start
