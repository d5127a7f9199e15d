"""Archives on disk: the table of contents of a custom archive, and of the directory format's toc.dat."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tmi_ops.backup.archive.fields import TAR_FORMAT, Fields, Input, MoreNeededError, read_entry, read_header
from tmi_ops.backup.archive.reader import ArchiveReader, TocRead
from tmi_ops.backup.archive.toc import LARGE_OBJECTS, ArchiveError, Toc, decoded

TOC_FILE = "toc.dat"
_LARGE_OBJECT = re.compile(rb"[0-9]{1,10} blob_[0-9]{1,10}\.dat")
READ_SIZE = 1 << 20


def read_toc(archive: Path) -> Toc:
    """The table of contents of an archive: a file of the custom format, or a directory. Data are not read.

    Raises:
        ArchiveError: it is neither, or it is damaged.
    """
    if archive.is_dir():
        return directory_toc((archive / TOC_FILE).read_bytes())
    reader = ArchiveReader()
    for chunk in chunks_of(archive):
        for event in reader.feed(chunk):
            if isinstance(event, TocRead):
                return event.toc
    reader.close()
    raise AssertionError


def directory_toc(content: bytes) -> Toc:
    """Parse the table of contents in a directory's toc.dat; its header gives the format as tar.

    Raises:
        ArchiveError: it is damaged.
    """
    source = Input(bytearray(content))
    fields = Fields(source)
    try:
        header = read_header(fields)
        if header.format != TAR_FORMAT:
            raise ArchiveError("The table of contents is not in the directory format.")
        entries = tuple(read_entry(fields, header) for _ in range(fields.integer()))
    except MoreNeededError:
        raise ArchiveError("The table of contents is cut off.") from None
    if source.rest:
        raise ArchiveError("The table of contents continues after its end.")
    return decoded(header, entries)


def require_own_files(directory: Path) -> None:
    """Refuse a directory archive that makes pg_restore read a file elsewhere.

    Raises:
        ArchiveError: its table of contents or a list of large objects names such a file, or it is damaged.
    """
    for entry in directory_toc((directory / TOC_FILE).read_bytes()).of_kind(LARGE_OBJECTS):
        listing = directory / entry.file_name
        if not listing.is_file():
            raise ArchiveError(f"The dump has no {entry.file_name}.")
        for line in listing.read_bytes().splitlines():
            if not _LARGE_OBJECT.fullmatch(line):
                raise ArchiveError(f"{entry.file_name} of the dump lists a file name that pg_dump does not give.")


def chunks_of(file: Path) -> Iterator[bytes]:
    """A file's bytes, 1 MiB at a time."""
    with file.open("rb") as content:
        while chunk := content.read(READ_SIZE):
            yield chunk
