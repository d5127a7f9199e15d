from __future__ import annotations

from pathlib import Path

import pytest

from tmi_ops.backup.archive.files import TOC_FILE, read_toc, require_own_files
from tmi_ops.backup.archive.toc import ArchiveError, copied_columns
from tmi_ops_tests.backup.archive.writing import VERSIONS, Entry, archive, entry, header, integer, text

VIEW = Entry(7, "VIEW", "high", "app", 'CREATE VIEW app.high AS\n SELECT 1 AS "ü";\n', dependencies=(3, 4))


@pytest.mark.parametrize("version", VERSIONS)
def test_an_entry_comes_with_all_that_the_archive_says_of_it(version: tuple[int, int, int], tmp_path: Path) -> None:
    file = tmp_path / "a.dump"
    file.write_bytes(archive({}, others=[VIEW], version=version))
    toc = read_toc(file)
    (found,) = toc.entries
    assert (found.dump_id, found.desc, found.tag, found.namespace, found.owner) == (7, "VIEW", "high", "app", "owner")
    assert found.definition == VIEW.definition
    assert found.dependencies == (3, 4)
    assert found.access_method == ("heap" if version >= (1, 14) else "")
    assert found.relkind == ("r" if version >= (1, 16) else "")
    assert (toc.header.version, toc.header.database, toc.header.server_version) == (version, "tmi", "17.2")
    assert toc.encoding == "UTF8"


def test_texts_are_decoded_from_the_encoding_of_the_dump(tmp_path: Path) -> None:
    latin = [Entry(1, "ENCODING", "ENCODING", "", "SET client_encoding = 'LATIN1';\n"), VIEW]
    content = archive({}, others=latin).replace("ü".encode(), b"\xfc ")
    (tmp_path / "a.dump").write_bytes(content)
    toc = read_toc(tmp_path / "a.dump")
    assert toc.encoding == "LATIN1"
    assert '"ü "' in toc.entries[1].definition


def test_a_directory_says_in_which_file_data_are(tmp_path: Path) -> None:
    made = entry(Entry(1, "TABLE DATA", "t", has_data=True), (1, 16, 0)).removesuffix(bytes([1]) + bytes(8))
    content = header((1, 16, 0), "zstd", format_=3) + integer(1) + made + text("12.dat")
    (tmp_path / TOC_FILE).write_bytes(content)
    toc = read_toc(tmp_path)
    assert (toc.entries[0].file_name, toc.header.compression) == ("12.dat", "zstd")
    (tmp_path / TOC_FILE).write_bytes(content[:-1])
    with pytest.raises(ArchiveError, match="cut off"):
        read_toc(tmp_path)


def _directory(place: Path, desc: str, file_name: str) -> Path:
    made = entry(Entry(1, desc, "t", has_data=True), (1, 16, 0)).removesuffix(bytes([1]) + bytes(8))
    (place / TOC_FILE).write_bytes(header((1, 16, 0), "zstd", format_=3) + integer(1) + made + text(file_name))
    return place


@pytest.mark.parametrize("file_name", ["../../etc/passwd", "/etc/passwd", "12.dat/../x", "toc.dat", "12.dat\n"])
def test_a_directory_that_has_data_read_from_elsewhere_is_refused(tmp_path: Path, file_name: str) -> None:
    with pytest.raises(ArchiveError, match="not a name that pg_dump gives"):
        require_own_files(_directory(tmp_path, "TABLE DATA", file_name))


def test_a_directory_whose_large_objects_lie_elsewhere_is_refused(tmp_path: Path) -> None:
    directory = _directory(tmp_path, "BLOBS", "blobs_9.toc")
    with pytest.raises(ArchiveError, match="has no blobs_9"):  # pg_restore would look for blobs_9.toc.gz
        require_own_files(directory)
    (directory / "blobs_9.toc").write_text("4711 blob_4711.dat\n")
    require_own_files(directory)
    (directory / "blobs_9.toc").write_text("4711 blob_4711.dat\n4712 ../../etc/shadow\n")
    with pytest.raises(ArchiveError, match="lists a file name"):
        require_own_files(directory)


@pytest.mark.parametrize(
    ("statement", "columns"),
    [
        ('COPY public.t (id, "b ""c, d)", note) FROM stdin;\n', ("id", 'b "c, d)', "note")),
        ('COPY app."odd (name), x" (a) FROM stdin;\n', ("a",)),
        ("COPY public.empty  FROM stdin;\n", ()),
        ('COPY "x"."FROM stdin" ("FROM stdin;") FROM stdin;\n', ("FROM stdin;",)),
    ],
)
def test_the_columns_of_a_tables_data_are_read_off_its_statement(statement: str, columns: tuple[str, ...]) -> None:
    assert copied_columns(statement) == columns


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda made: b"PGDMQ" + made[5:], "does not begin"),
        (lambda made: made[:6] + b"\x11" + made[7:], r"version 1\.17\.0"),
        (lambda made: made[:6] + b"\x0b" + made[7:], r"version 1\.11\.0"),
        (lambda made: made[:8] + b"\x02" + made[9:], "integer size"),
        (lambda made: made[:10] + b"\x03" + made[11:], "custom format"),
        (lambda made: made[:11] + b"\x09" + made[12:], "number 9"),
        (lambda made: made.replace(text("tmi"), integer(0x7FFFFFFF) + b"tmi"), "2147483647 bytes"),
    ],
    ids=["magic", "newer", "older", "integers", "format", "compression", "length"],
)
def test_a_header_that_is_not_understood_is_refused(damage: object, said: str, tmp_path: Path) -> None:
    assert callable(damage)
    (tmp_path / "a.dump").write_bytes(damage(archive({"t": b"1\n"})))
    with pytest.raises(ArchiveError, match=said):
        read_toc(tmp_path / "a.dump")
