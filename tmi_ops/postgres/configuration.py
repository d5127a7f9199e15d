"""Reads and writes values of postgresql.conf and postgresql.auto.conf.

Source: PostgreSQL, Server Configuration, Parameter Interaction via the Configuration File.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_LINE = re.compile(r"^\s*([A-Za-z_][\w.]*)\s*(?:=\s*|\s+)('(?:[^'\\]|\\.|'')*'|[^\s#']+)\s*(?:#.*)?$")
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ESCAPED = re.compile(r"\\(.)|''")
_LARGEST = 1 << 20  # bytes of a file; a backup's postgresql.conf may include anything
_DEEPEST = 10  # source: guc-file.l, CONF_FILE_MAX_DEPTH


def quoted_value(value: str) -> str:
    """The value in single quotes, escaped."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def plain_value(written: str) -> str:
    """The value of what is written, with or without quotes."""
    if not written.startswith("'"):
        return written
    return _ESCAPED.sub(lambda match: _ESCAPES.get(match[1], match[1]) if match[1] else "'", written[1:-1])


def setting_of(line: str) -> tuple[str, str] | None:
    """Name, in lower case, and value as written of a line; None if it sets nothing."""
    match = _LINE.match(line)
    return (match[1].lower(), match[2]) if match else None


def parse_settings(text: str) -> dict[str, str]:
    """Names and values, as written, of a text; a later line wins."""
    return dict(found for line in text.splitlines() if (found := setting_of(line)) is not None)


def read_settings(file: Path, depth: int = 0) -> dict[str, str]:
    """Names and values, as written, of a file and the files it includes; a later line wins. An absent file is empty."""
    found: dict[str, str] = {}
    try:
        if not file.is_file() or file.stat().st_size > _LARGEST:
            return found
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        setting = setting_of(line)
        if setting is None:
            continue
        name, value = setting
        if name in ("include", "include_if_exists", "include_dir"):
            for included in _included(file, name, plain_value(value)) if depth < _DEEPEST else ():
                found |= read_settings(included, depth + 1)
        else:
            found[name] = value
    return found


def _included(file: Path, how: str, where: str) -> Iterator[Path]:
    place = file.parent / where
    if how != "include_dir":
        yield place
    elif place.is_dir():
        yield from sorted(one for one in place.iterdir() if one.suffix == ".conf" and not one.name.startswith("."))
