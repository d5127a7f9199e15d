"""Sizes and stretches of time as a person reads them, the same on every screen, page and log."""

from __future__ import annotations

_KILO = 1000
_SIZE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86400
# Hours until here, then days: an objective of 24 h is called what it is.
_DAYS_FROM_S = 2 * _DAY_S


def size_words(size: float) -> str:
    """1234567 -> '1.2 MB' (decimal units)."""
    for unit in _SIZE_UNITS:
        if size < _KILO or unit == _SIZE_UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= _KILO
    raise AssertionError


def time_words(seconds: float) -> str:
    """3725 -> '1 h 2 min'; 14400 -> '4 h': the finer unit only where it says something."""
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
