"""Sizes as PostgreSQL's settings write them: powers of 1024.

Source: https://www.postgresql.org/docs/current/config-setting.html, "Numeric with Unit".
"""

from __future__ import annotations

import re

from tmi_ops.errors import DatabaseError

BLOCK = 8192
_UNITS = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
_SIZE = re.compile(r"(-?\d+)\s*([kMGT]?B)?")


def parse_size(text: str, unit: int = 1) -> int | None:
    """`16MB` in bytes; None where it is no size. A bare number counts `unit` bytes (shared_buffers: BLOCK)."""
    match = _SIZE.fullmatch(text.strip().strip("'"))
    if match is None:
        return None
    return int(match[1]) * (_UNITS[match[2].upper()] if match[2] else unit)


def shown_size(text: str) -> int:
    """A size as SHOW prints it, in bytes.

    Raises:
        DatabaseError: it is none.
    """
    size = parse_size(text)
    if size is None:
        raise DatabaseError(f"The server sent {text!r}, which is not a size.")
    return size
