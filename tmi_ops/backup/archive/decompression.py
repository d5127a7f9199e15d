"""Decompresses a stream and passes it on in small pieces: a few kB of zstd can hold 4 GB of one letter."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import IO, Protocol, cast

import zstandard

from tmi_ops.backup.archive.toc import ArchiveError, Compression

PIECE = 1 << 18  # bytes passed on at once
# Recognize both zlib's header, used in an archive's blocks, and gzip's, used in files of the directory format.
_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS
# pg_dump's zstd window at any level; a larger one asks for memory that no dump of ours needs.
_MAX_ZSTD_WINDOW = 1 << 27

Sink = Callable[[bytes], object]


class Decompressor(Protocol):
    """Decompresses one stream."""

    def feed(self, content: bytes) -> None:
        """Pass on the data that this content completes.

        Raises:
            ArchiveError: it is damaged.
        """
        ...

    def close(self) -> None:
        """Declare the end of the stream.

        Raises:
            ArchiveError: it is incomplete.
        """
        ...


def decompressor(compression: Compression, sink: Sink) -> Decompressor:
    """A decompressor of one stream that writes into `sink`.

    Raises:
        ArchiveError: this compression is not supported.
    """
    if compression == "none":
        return _Plain(sink)
    if compression == "gzip":
        return _Zlib(sink)
    if compression == "zstd":
        return _Zstd(sink)
    raise ArchiveError(
        f"The dump is compressed with {compression}, which tmi_ops cannot read.",
        hint="dump with --compress=zstd or gzip",
    )


class _Plain:
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def feed(self, content: bytes) -> None:
        self._sink(content)

    def close(self) -> None:
        pass


class _Zlib:
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._stream = zlib.decompressobj(_ZLIB_OR_GZIP)
        self._fed = False

    def feed(self, content: bytes) -> None:
        self._fed = self._fed or bool(content)
        try:
            while content:
                piece = self._stream.decompress(content, PIECE)
                if piece:
                    self._sink(piece)
                elif not self._stream.unconsumed_tail:
                    break
                content = self._stream.unconsumed_tail
        except zlib.error as error:
            raise ArchiveError(f"Compressed data of the dump are damaged ({error}).") from None
        if self._stream.unused_data:
            raise ArchiveError("Compressed data of the dump continue after their end.")

    def close(self) -> None:
        if self._fed and not self._stream.eof:
            raise ArchiveError("Compressed data of the dump are cut off.")


class _Zstd:
    def __init__(self, sink: Sink) -> None:
        self._writer = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW).stream_writer(
            cast(IO[bytes], _Writer(sink)), write_size=PIECE
        )

    def feed(self, content: bytes) -> None:
        try:
            self._writer.write(content)
        except zstandard.ZstdError as error:
            raise ArchiveError(f"Compressed data of the dump are damaged ({error}).") from None

    def close(self) -> None:
        pass  # a truncated frame shows in the data: a table lacks its last line, an object's digest differs


class _Writer:
    """The file-like object that zstandard writes into."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, content: bytes) -> int:
        self._sink(bytes(content))
        return len(content)
