"""Count what an archive holds while it streams by, in a thread beside the consumer.

Unpacking and hashing release the interpreter lock, so on two cores counting costs the stream little time.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping

from tmi_ops.backup.archive.contents import (
    Contents,
    ContentsReader,
    LargeObjectsContent,
    LargeObjectsSum,
    RowsDigest,
    TableContent,
    sequences_of,
    sum_of_objects,
)
from tmi_ops.backup.archive.decompression import decompressor
from tmi_ops.backup.archive.toc import TABLE_DATA, ArchiveError, Compression, Toc
from tmi_ops.backup.dump import count_command, stream_program
from tmi_ops.postgres.connections import connect, libpq_environment
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.server import read_server
from tmi_ops.settings import PostgresSettings
from tmi_ops.store.channel import Channel, ChannelClosedError

# File names of the directory format: tables by suffix, and large objects.
_SUFFIXES: Mapping[str, Compression] = {"": "none", ".gz": "gzip", ".lz4": "lz4", ".zst": "zstd"}
_LARGE_OBJECT = re.compile(r"blob_(\d{1,10})")


class CountedArchive:
    """Passes on an archive's chunks once, and then knows what it held."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self._channel = Channel()
        self._reader = ContentsReader()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._count, name="count", daemon=True)

    def __iter__(self) -> Iterator[bytes]:
        """The chunks, unchanged.

        Raises:
            ArchiveError: they are not a pg_dump archive.
        """
        self._thread.start()
        try:
            for chunk in self._chunks:
                self._channel.put(chunk)
                yield chunk
            self._channel.end()
        except ChannelClosedError:
            self._thread.join()
            raise self._failure or ArchiveError("The count of the dump was stopped.") from None
        except BaseException:
            self._channel.abandon()
            raise
        finally:
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def result(self) -> tuple[Toc, Contents]:
        """What the archive held. Call it after all chunks have passed.

        Raises:
            ArchiveError: the archive is cut off.
        """
        return self._reader.result()

    @property
    def head(self) -> bytes:
        """The archive without its data, which `read_toc` and pg_restore can read."""
        return bytes(self._reader.head)

    def _count(self) -> None:
        try:
            while (chunk := self._channel.get()) is not None:
                self._reader.feed(chunk)
        except ChannelClosedError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that passes the chunks on
            self._failure = error
            self._channel.abandon()


class CountedDirectory:
    """Counts the files of a directory archive as they stream by; several may pass at once."""

    def __init__(self) -> None:
        self._rows: dict[str, RowsDigest] = {}
        self._objects: dict[int, LargeObjectsContent] = {}

    def passing(self, name: str, chunks: Iterable[bytes], compression: Compression) -> Iterator[bytes]:
        """The chunks of the file of this name, unchanged.

        Raises:
            ArchiveError: they are not what pg_dump writes into such a file.
        """
        stem = name.partition(".dat")[0]
        large_object = _LARGE_OBJECT.fullmatch(stem)
        rows, objects = RowsDigest(), LargeObjectsSum()
        if large_object is not None:
            objects.begin(int(large_object[1]))
        unpacking = decompressor(compression, rows.feed if large_object is None else objects.feed)
        for chunk in chunks:
            unpacking.feed(chunk)
            yield chunk
        unpacking.close()
        if large_object is None:
            self._rows[f"{stem}.dat"] = rows
        else:
            objects.end()
            self._objects[int(large_object[1])] = objects.content()

    def result(self, toc: Toc) -> Contents:
        """What the archive held. Call it after all its files have passed.

        Raises:
            ArchiveError: a file is missing.
        """
        tables: list[TableContent] = []
        for entry in toc.of_kind(TABLE_DATA):
            rows = self._rows.get(entry.file_name)
            if rows is None:
                raise ArchiveError(f"The dump has no file with the data of {entry.namespace}.{entry.tag}.")
            tables.append(rows.content(entry))
        return Contents(tuple(tables), sequences_of(toc), sum_of_objects(self._objects.values()))


def data_file(name: str) -> Compression | None:
    """The compression of a data file of a directory archive; None if it is not a data file."""
    stem, dat, suffix = name.partition(".dat")
    return _SUFFIXES.get(suffix) if dat and stem != "toc" else None


def count_database(address: PostgresSettings, programs: Programs) -> tuple[Toc, Contents]:
    """Dump the database that `address` names as a backup would, and only count the output.

    Raises:
        DatabaseError: the server could not be reached.
        ProgramError: pg_dump failed.
    """
    with connect(address) as connection:
        server = read_server(connection)
    archive = CountedArchive(
        stream_program(count_command(programs, server.encoding), libpq_environment(address, server_major=server.major))
    )
    for _ in archive:
        pass
    return archive.result()
