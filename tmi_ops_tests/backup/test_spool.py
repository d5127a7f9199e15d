from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from threading import Timer

import pytest

from tmi_ops.backup import spool
from tmi_ops.backup.archive.contents import LargeObjectsContent, sum_of_objects
from tmi_ops.backup.archive.toc import Compression
from tmi_ops.backup.counting import data_file
from tmi_ops.backup.dump import Stop
from tmi_ops.backup.spool import completed_files


class _Stop(Stop):
    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[bool] = []

    def pause(self, paused: bool) -> None:
        self.pauses.append(paused)


def _ended(result: BaseException | None = None) -> Future[None]:
    future: Future[None] = Future()
    if result is None:
        future.set_result(None)
    else:
        future.set_exception(result)
    return future


def test_a_file_is_given_once_nobody_writes_it_and_what_holds_no_data_at_the_end(tmp_path: Path) -> None:
    dumping: Future[None] = Future()
    (tmp_path / "toc.dat").touch()
    (tmp_path / "1.dat.zst").touch()
    (tmp_path / "blobs_7.toc").touch()
    with (tmp_path / "2.dat.zst").open("wb"):
        files = completed_files(tmp_path, dumping, _Stop(), lambda: 0)
        assert next(files).name == "1.dat.zst"
        Timer(0.5, lambda: (tmp_path / "3.dat.zst").touch()).start()
        assert next(files).name == "3.dat.zst"
    assert next(files).name == "2.dat.zst"
    dumping.set_result(None)
    assert [file.name for file in files] == ["blobs_7.toc", "toc.dat"]


def test_where_it_cannot_be_told_who_writes_all_wait_for_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "_open_files", lambda directory: {str(file) for file in directory.iterdir()})
    (tmp_path / "1.dat").touch()
    dumping: Future[None] = Future()
    Timer(0.5, lambda: dumping.set_result(None)).start()
    assert [file.name for file in completed_files(tmp_path, dumping, _Stop(), lambda: 0)] == ["1.dat"]


def test_the_dump_is_paused_while_too_much_waits_and_goes_on_when_it_fails(tmp_path: Path) -> None:
    stop, dumping = _Stop(), Future[None]()
    sizes = iter([spool.WAITING_LIMIT + 1, spool.WAITING_LIMIT + 1, 0, spool.WAITING_LIMIT + 1])

    def waiting() -> int:
        size = next(sizes, None)
        if size is None:
            dumping.set_result(None)
            return spool.WAITING_LIMIT + 1
        return size

    assert list(completed_files(tmp_path, dumping, stop, waiting)) == []
    assert stop.pauses == [True, False, True, False]


def test_what_ended_the_dump_is_said_after_its_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="torn"):
        list(completed_files(tmp_path, _ended(ValueError("torn")), _Stop(), lambda: 0))


@pytest.mark.parametrize(
    ("name", "compression"),
    [
        ("12.dat", "none"),
        ("12.dat.gz", "gzip"),
        ("blob_4711.dat.zst", "zstd"),
        ("toc.dat", None),
        ("blobs_9.toc", None),
        ("12.dat.xz", None),
    ],
)
def test_a_file_says_by_its_name_how_its_data_are_compressed(name: str, compression: Compression | None) -> None:
    assert data_file(name) == compression


def test_large_objects_that_were_counted_apart_sum_up_in_any_order() -> None:
    one, other = LargeObjectsContent(1, 3, "f" * 32), LargeObjectsContent(1, 4, "0" * 31 + "2")
    assert sum_of_objects([one, other]) == sum_of_objects([other, one]) == LargeObjectsContent(2, 7, "0" * 31 + "1")
    assert sum_of_objects([]) == LargeObjectsContent()
