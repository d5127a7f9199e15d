from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tmi_ops.backup.archive.contents import Contents, ContentsReader, LargeObjectsContent, count_lines
from tmi_ops.backup.archive.decompression import PIECE, decompressor
from tmi_ops.backup.archive.toc import ArchiveError, Compression
from tmi_ops_tests.backup.archive.writing import COMPRESSIONS, VERSIONS, Entry, archive, packed

ROWS = b"1\tone\n2\ttwo \\n lines\n3\t\\N\n"
OBJECTS = {16_400: b"picture", 3_000_000_000: b"", 7: b"\x00\xff" * 50}


def read(content: bytes, size: int = 1 << 20) -> Contents:
    reader = ContentsReader()
    for start in range(0, len(content), size):
        reader.feed(content[start : start + size])
    return reader.result()[1]


@pytest.mark.parametrize(
    ("version", "compression"),
    [(version, packed) for version in VERSIONS for packed in COMPRESSIONS if packed != "zstd" or version >= (1, 15)],
)
def test_every_version_and_compression_gives_the_digest_that_copy_and_sha256sum_give(
    version: tuple[int, int, int], compression: Compression
) -> None:
    found = read(archive({"t": ROWS, "none": b""}, objects=OBJECTS, version=version, compression=compression))
    table, none = found.tables
    assert (table.schema, table.name, table.columns) == ("public", "t", ("id", "note"))
    assert (table.rows, table.bytes, table.sha256) == (3, len(ROWS), hashlib.sha256(ROWS).hexdigest())
    assert (none.rows, none.bytes, none.sha256) == (0, 0, hashlib.sha256(b"").hexdigest())
    assert (found.large_objects.count, found.large_objects.bytes) == (3, sum(map(len, OBJECTS.values())))


@given(size=st.integers(1, 200), compression=st.sampled_from(COMPRESSIONS))
@settings(max_examples=60, deadline=None)
def test_where_the_stream_is_cut_into_chunks_does_not_matter(size: int, compression: Compression) -> None:
    content = archive({"t": ROWS, "u": b"x\ty\n" * 9}, objects=OBJECTS, compression=compression)
    assert read(content, size) == read(content)


def test_the_order_of_large_objects_does_not_matter_and_each_byte_of_them_does() -> None:
    def digest(objects: dict[int, bytes]) -> LargeObjectsContent:
        return read(archive({}, objects=objects)).large_objects

    assert digest({1: b"a", 2: b"b"}) == digest({2: b"b", 1: b"a"})
    assert digest({1: b"a", 2: b"b"}) != digest({1: b"b", 2: b"a"})
    assert digest({1: b"a"}) != digest({1: b"a", 2: b""})
    assert digest({}) == LargeObjectsContent()


def test_a_dump_cut_short_anywhere_is_refused() -> None:
    content = archive({"t": ROWS}, objects={5: b"large"}, compression="gzip")
    for length in range(len(content)):
        with pytest.raises(ArchiveError):
            read(content[:length])


@pytest.mark.parametrize("compression", COMPRESSIONS)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_bytes_that_were_altered_give_an_error_of_ours_or_another_content(
    compression: Compression, data: st.DataObject
) -> None:
    content = bytearray(archive({"t": ROWS, "u": b"7\tseven\n"}, objects=OBJECTS, compression=compression))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read(bytes(content), data.draw(st.integers(1, 400)))
    except ArchiveError:
        return
    assert len(found.tables) == 2


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_bytes_that_are_no_archive_are_refused(noise: bytes) -> None:
    for content in (noise, b"PGDMP\x01\x10\x00\x04\x08\x01" + noise):
        with pytest.raises(ArchiveError):
            read(content)


def test_rows_without_their_end_are_refused() -> None:
    content = archive({"t": ROWS}).replace(b"\\.\n\n\n", b"\\.\n\n ")
    with pytest.raises(ArchiveError, match=r"public\.t"):
        read(content)


def test_data_that_never_come_and_data_that_come_twice_are_refused() -> None:
    once = archive({"t": ROWS})
    start = once.index(b"owner") + len(b"owner")
    block = once[once.index(bytes([1, 0, 1, 0, 0, 0]), start) :]
    with pytest.raises(ArchiveError, match=r"before the data of public\.t"):
        read(once.removesuffix(block))
    with pytest.raises(ArchiveError, match="unexpected block"):
        read(once + block)


def test_sequences_stand_where_the_dump_says() -> None:
    others = [
        Entry(1, "SEQUENCE SET", "a.b", definition="SELECT pg_catalog.setval('public.\"a.b\"', -104, true);\n"),
        Entry(2, "SEQUENCE SET", "new", definition="SELECT pg_catalog.setval('public.new', 1, false);\n"),
    ]
    found = read(archive({}, others=others)).sequences
    assert [(item.name, item.last_value, item.called) for item in found] == [("a.b", -104, True), ("new", 1, False)]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_data_are_handed_on_in_small_pieces_however_well_they_were_compressed(compression: Compression) -> None:
    pieces: list[int] = []
    stream = decompressor(compression, lambda piece: pieces.append(len(piece)))
    for _ in range(8 if compression == "none" else 1):
        stream.feed(packed(b"a" * (PIECE if compression == "none" else 8 * PIECE), compression))
    stream.close()
    assert sum(pieces) == 8 * PIECE
    assert max(pieces) <= PIECE


@pytest.mark.parametrize("piece", [b"", b"\n", b"a\n\nb", b"\nab\n", b"x" * 400])
def test_lines_are_counted_the_same_in_both_ways(piece: bytes) -> None:
    assert count_lines(piece, long=True) == count_lines(piece, long=False) == piece.count(b"\n")
