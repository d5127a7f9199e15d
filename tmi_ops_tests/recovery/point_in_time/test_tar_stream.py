"""Extracting a tar from the store writes only the files that were backed up, and only inside the directory."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
import zstandard

from tmi_ops.errors import IntegrityError
from tmi_ops.recovery.point_in_time.tar_stream import MOST_TRAILING, extract


def a_tar(*members: tuple[str, bytes, bytes]) -> bytes:
    """Name, type and content of each."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(content) if kind == tarfile.REGTYPE else 0
            info.linkname = content.decode() if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def extracted(tar: bytes, directory: Path, limit: int | None = None) -> int:
    packed = zstandard.ZstdCompressor().compress(tar)
    directory.mkdir()
    return extract(iter([packed[:100], packed[100:]]), directory, "base.tar.zst", limit=limit)


def test_files_and_directories_come_out_and_tablespace_links_do_not(tmp_path: Path) -> None:
    tar = a_tar(
        ("base", tarfile.DIRTYPE, b""),
        ("base/1", tarfile.REGTYPE, b"x" * 3000),
        ("PG_VERSION", tarfile.REGTYPE, b"17\n"),
        ("pg_tblspc/16384", tarfile.SYMTYPE, b"/etc"),
    )
    assert extracted(tar, tmp_path / "out", limit=3003) == 3003
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["1", "PG_VERSION", "base"]


@pytest.mark.parametrize(
    ("name", "kind", "content", "said"),
    [
        ("../outside", tarfile.REGTYPE, b"x", "leads out of it"),
        ("/outside", tarfile.REGTYPE, b"x", "leads out of it"),
        ("base/../../outside", tarfile.REGTYPE, b"x", "leads out of it"),
        ("link", tarfile.SYMTYPE, b"/etc", "neither a file nor a directory"),
        ("hard", tarfile.LNKTYPE, b"/etc/passwd", "neither a file nor a directory"),
        ("pipe", tarfile.FIFOTYPE, b"", "neither a file nor a directory"),
    ],
)
def test_what_leads_out_or_is_no_file_is_refused(
    tmp_path: Path, name: str, kind: bytes, content: bytes, said: str
) -> None:
    with pytest.raises(IntegrityError, match=said):
        extracted(a_tar((name, kind, content)), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_more_than_was_backed_up_is_refused_before_it_is_written(tmp_path: Path) -> None:
    tar = a_tar(("a", tarfile.REGTYPE, b"x" * 600), ("b", tarfile.REGTYPE, b"x" * 500))
    with pytest.raises(IntegrityError, match="more than the 1,000 bytes"):
        extracted(tar, tmp_path / "out", limit=1000)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]


def test_a_negative_size_is_refused(tmp_path: Path) -> None:
    tar = bytearray(a_tar(("a", tarfile.REGTYPE, b"")))
    tar[124:136] = b"\xff" * 12  # base-256, all bits set: minus one
    tar[148:156] = b" " * 8
    tar[148:156] = f"{sum(tar[:512]):06o}\0 ".encode()
    with pytest.raises(IntegrityError, match="has -1 bytes"):
        extracted(bytes(tar), tmp_path / "out")


def test_what_goes_on_behind_the_end_is_not_unpacked_for_ever(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="continues after its end"):
        extracted(a_tar(("a", tarfile.REGTYPE, b"x")) + bytes(4 * MOST_TRAILING), tmp_path / "out")
