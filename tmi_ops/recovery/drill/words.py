"""Durations and sizes as a person reads them."""

from __future__ import annotations

_MINUTE, _HOUR = 60, 60
_KILO = 1000


def duration_words(seconds: float) -> str:
    """`4.2 s`, `3 min 5 s`, `2 h 15 min`."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _MINUTE)
    if minutes < _HOUR:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, _HOUR)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def size_words(size: float) -> str:
    """`1.2 MB`; decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < _KILO:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= _KILO
    return f"{size:.1f} TB"
