"""Formats sizes, durations and foreign text, the same on every screen, page and log."""

from __future__ import annotations

import re

_KILO = 1000
_SIZE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86400
# From here on days instead of hours, so that an objective of 24 h is shown as 24 h.
_DAYS_FROM_S = 2 * _DAY_S
# Control characters except line break and tab, and characters that reorder or hide text.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
# What makes links, images and tags in Markdown.
_MARKDOWN_ACTIVE = re.compile(r"([\\\[\]<>!])")


def printable(text: str) -> str:
    """Escape control characters in text from a database or a store: ESC becomes `\\x1b`.

    All such text goes through this: in the command's output, pages and Dagster's metadata.
    """
    return _UNPRINTABLE.sub(lambda match: _escaped(ord(match[0])), text)


def escaped_markdown(text: str) -> str:
    """Escape such text for Markdown: on one line, without links, images or tags."""
    return _MARKDOWN_ACTIVE.sub(r"\\\1", printable(text).replace("\n", " "))


def _escaped(code: int) -> str:
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def format_size(size: float) -> str:
    """1234567 -> '1.2 MB' (decimal units)."""
    sign, size = ("-", -size) if size < 0 else ("", size)
    for unit in _SIZE_UNITS:
        if size < _KILO or unit == _SIZE_UNITS[-1]:
            return f"{sign}{size:.0f} {unit}" if unit == "B" else f"{sign}{size:.1f} {unit}"
        size /= _KILO
    raise AssertionError


def format_duration(seconds: float) -> str:
    """3725 -> '1 h 2 min'; 14400 -> '4 h'."""
    if round(seconds, 1) < _MINUTE_S:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    seconds = round(seconds)
    if seconds < _HOUR_S:
        return _two_units(seconds, "min", _MINUTE_S, "s", 1)
    if seconds < _DAYS_FROM_S:
        return _two_units(seconds, "h", _HOUR_S, "min", _MINUTE_S)
    return _two_units(seconds, "d", _DAY_S, "h", _HOUR_S)


def _two_units(seconds: int, unit: str, length: int, finer_unit: str, finer_length: int) -> str:
    whole, rest = divmod(seconds, length)
    finer = rest // finer_length
    return f"{whole} {unit} {finer} {finer_unit}" if finer else f"{whole} {unit}"
