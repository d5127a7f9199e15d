from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from tmi_ops.postgres.lock_table import SETTING
from tmi_ops.recovery.fetch import FetchedBackup
from tmi_ops.recovery.verify import lock_parameters
from tmi_ops_tests.backup.archive.writing import Entry, archive


@dataclass
class _Fetched:
    dump: Path
    manifest: SimpleNamespace

    def path(self, name: str) -> Path:
        return self.dump.parent / name


def _room(dump: Path, format_: str, names: tuple[str, ...] = (), tables: int = 0) -> int:
    manifest = SimpleNamespace(
        format=format_,
        objects=[SimpleNamespace(name=name) for name in names],
        fingerprints=dict.fromkeys(map(str, range(tables))),
    )
    return int(lock_parameters(cast(FetchedBackup, _Fetched(dump, manifest)))[SETTING])


def _entries(count: int) -> bytes:
    return archive({}, others=[Entry(number, "TABLE", f"t{number}") for number in range(1, count + 1)])


def test_a_scratch_cluster_has_room_for_every_object_of_the_dump(tmp_path: Path) -> None:
    dump = tmp_path / "database.dump"
    dump.write_bytes(_entries(100))
    assert _room(dump, "custom") == 64
    dump.write_bytes(_entries(20_000))
    assert _room(dump, "custom") * 100 >= 30_000


def test_a_script_says_how_many_by_the_table_of_contents_beside_it_or_by_its_tables(tmp_path: Path) -> None:
    (tmp_path / "toc.dump").write_bytes(_entries(20_000))
    assert _room(tmp_path / "database.sql.zst", "plain", ("toc.dump",)) * 100 >= 30_000
    assert _room(tmp_path / "database.sql.zst", "plain", tables=20_000) * 100 >= 80_000
