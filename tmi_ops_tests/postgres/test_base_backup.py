from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.base_backup import (
    BaseBackupOptions,
    Data,
    Message,
    NewArchive,
    NewManifest,
    Progress,
    WalPosition,
    base_backup_command,
    checked_archive_name,
    parse_message,
    parse_position,
    parse_tablespaces,
    split_parts,
)


@pytest.mark.parametrize("version", [130000, 140009])
def test_servers_before_15_are_asked_in_the_old_grammar_without_what_they_do_not_know(version: int) -> None:
    options = BaseBackupOptions("it's", zstd_level=1, zstd_workers=2, max_rate=10 << 20, incremental=True)
    assert base_backup_command(options, version) == (
        "BASE_BACKUP LABEL 'it''s' PROGRESS TABLESPACE_MAP MANIFEST 'yes' MAX_RATE 10240 WAL NOWAIT FAST"
    )


@pytest.mark.parametrize("version", [150000, 160004, 170010, 180000])
def test_servers_from_15_on_compress_and_never_wait_for_their_archive_command(version: int) -> None:
    command = base_backup_command(BaseBackupOptions("x", zstd_level=1, zstd_workers=2), version)
    assert command == (
        "BASE_BACKUP (LABEL 'x', PROGRESS, TABLESPACE_MAP, MANIFEST 'yes', WAL true, WAIT false, CHECKPOINT 'fast', "
        "COMPRESSION 'zstd', COMPRESSION_DETAIL 'level=1,workers=2')"
    )


def test_an_incremental_gentle_uncompressed_backup_is_asked_for_in_words() -> None:
    command = base_backup_command(BaseBackupOptions("x", incremental=True, fast_checkpoint=False), 170000)
    assert command.endswith("CHECKPOINT 'spread', INCREMENTAL)")
    assert "COMPRESSION" not in command


@pytest.mark.parametrize(("asked", "told"), [(1, 32), (100 << 20, 102400), (10 << 40, 1048576)])
def test_a_rate_is_told_in_kilobytes_within_what_the_server_accepts(asked: int, told: int) -> None:
    assert f"MAX_RATE {told}," in base_backup_command(BaseBackupOptions("x", max_rate=asked), 170000)


@pytest.mark.parametrize(
    ("message", "meaning"),
    [
        (b"nbase.tar.zst\0\0", NewArchive("base.tar.zst", "")),
        ("n16390.tar\0/srv/größe\0".encode(), NewArchive("16390.tar", "/srv/größe")),
        (b"m", NewManifest()),
        (b"d\0\1\2", Data(b"\0\1\2")),
        (b"d", Data(b"")),
        (b"p\0\0\0\0\0\1\0\0", Progress(65536)),
    ],
)
def test_each_message_of_the_stream_is_understood(message: bytes, meaning: Message) -> None:
    assert parse_message(message) == meaning
    assert parse_message(memoryview(message)) == meaning


@given(st.binary(max_size=40) | st.binary(max_size=8).map(lambda name: b"n" + name + b"\0\0"))
def test_whatever_bytes_come_they_are_a_message_or_a_clear_error(message: bytes) -> None:
    try:
        parsed = parse_message(message)
    except DatabaseError as error:
        assert "unknown message" in error.message
    else:
        assert isinstance(parsed, Data | Progress | NewArchive | NewManifest)


@pytest.mark.parametrize("name", ["", "../base.tar", "a/b.tar", ".hidden", "a\nb.tar"])
def test_a_server_cannot_make_us_write_outside_the_backups_folder(name: str) -> None:
    with pytest.raises(DatabaseError, match="not a valid file name"):
        checked_archive_name(name)


def test_positions_and_tablespaces_are_read_from_their_result_sets() -> None:
    assert parse_position([{"recptr": "1A/28", "tli": "3"}]) == WalPosition("1A/28", 3)
    own, data = parse_tablespaces(
        [
            {"spcoid": "16390", "spclocation": "/srv/fast", "size": "7"},
            {"spcoid": None, "spclocation": None, "size": None},
        ]
    )
    assert (own.oid, own.location, own.size) == ("16390", "/srv/fast", 7168)
    assert (data.oid, data.location, data.size) == (None, None, 0)


def test_the_stream_is_cut_into_archives_and_manifest_and_progress_is_told_as_it_grows() -> None:
    messages = [
        Progress(0),
        NewArchive("a.tar", "/a"),
        Data(b"1"),
        Progress(10),
        Data(b"2"),
        NewArchive("base.tar", ""),
        NewManifest(),
        Progress(30),
        Data(b"3"),
    ]
    progress: list[int] = []
    parts = [(part.archive, b"".join(part.chunks)) for part in split_parts(messages, progress.append)]
    assert parts == [(NewArchive("a.tar", "/a"), b"12"), (NewArchive("base.tar", ""), b""), (None, b"3")]
    assert sum(progress) == 30


def test_data_before_any_archive_is_refused() -> None:
    with pytest.raises(DatabaseError, match="outside any archive"):
        list(split_parts([Data(b"stray")], lambda _: None))
