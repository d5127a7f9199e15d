"""Runs a plain dump with psql, with psql's backslash commands disabled.

A dump is data from the store, and psql would run `\\! command` in it as our user. So psql is restricted before the dump
begins, with a key that no dump can know.
Source: https://www.postgresql.org/docs/current/app-psql.html, \\restrict; CVE-2025-8714
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

import zstandard

from tmi_ops.errors import ProgramError
from tmi_ops.postgres.programs import Programs
from tmi_ops.recovery.loader import Loader

_COPY_SIZE = 1 << 20
# The first minor release of each major version that has \restrict; later major versions all have it.
_RESTRICTS_SINCE = {13: 22, 14: 19, 15: 14, 16: 10, 17: 6}
# pg_dump's own restriction, at the beginning and end of a script, must be removed.
_OWN = re.compile(rb"\A(?:(?:--[^\n]*)?\r?\n)*\\restrict (?P<key>[A-Za-z0-9]{1,128})\r?\n")
_HEAD = 1 << 14


def run_script(script: Path, programs: Programs, loader: Loader) -> None:
    """Run the script in one transaction; `.zst` is decompressed.

    Raises:
        ProgramError: this psql cannot be restricted, or the script failed.
    """
    if not can_restrict(programs):
        raise ProgramError(
            f"psql {programs.version} cannot disable commands in a plain dump (CVE-2025-8714).",
            hint=f"install the latest minor release of PostgreSQL {programs.major}, or take backups in the custom "
            "format",
        )
    argv: list[str | Path] = [
        programs.path("psql"), "--no-psqlrc", "--no-password", "--quiet", "--single-transaction",
        "--set=ON_ERROR_STOP=1", "--output=/dev/null",
    ]  # fmt: skip
    loader.run(argv, restricted(_script_bytes(script), secrets.token_hex(16)))


def can_restrict(programs: Programs) -> bool:
    """Whether psql has `\\restrict`."""
    minor = int(programs.version.split(".")[1]) if "." in programs.version else 0
    return programs.major > max(_RESTRICTS_SINCE) or minor >= _RESTRICTS_SINCE.get(programs.major, minor + 1)


def restricted(chunks: Iterable[bytes], key: str) -> Iterator[bytes]:
    """The script, restricted by `key`, without pg_dump's own restriction."""
    yield f"\\restrict {key}\n".encode()
    source = iter(chunks)
    head = b""
    for chunk in source:
        head += chunk
        if len(head) >= _HEAD:
            break
    own = _OWN.match(head)
    if own is None:
        yield head
        yield from source
        return
    yield from _without(b"\n\\unrestrict " + own["key"] + b"\n", head[own.end() :], source)


def _without(line: bytes, held: bytes, source: Iterator[bytes]) -> Iterator[bytes]:
    """Remove `line` from the stream; holds back as many bytes as could be its beginning."""
    for chunk in source:
        held = (held + chunk).replace(line, b"\n")
        safe = len(held) - len(line) + 1
        if safe > 0:
            yield held[:safe]
            held = held[safe:]
    yield held.replace(line, b"\n")


def _script_bytes(script: Path) -> Iterable[bytes]:
    with script.open("rb") as file:
        if script.suffix == ".zst":
            with zstandard.ZstdDecompressor().stream_reader(file) as reader:
                while chunk := reader.read(_COPY_SIZE):
                    yield chunk
        else:
            while chunk := file.read(_COPY_SIZE):
                yield chunk
