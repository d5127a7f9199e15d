"""Marks and ages on the status screen."""

from __future__ import annotations

from datetime import datetime

from tmi_ops.objectives.standing import Standing
from tmi_ops.text import format_duration

MARKS = {
    Standing.MET: ("✓", "green"),
    Standing.UNKNOWN: ("?", "magenta"),
    Standing.AT_RISK: ("!", "yellow"),
    Standing.BREACHED: ("✗", "bold red"),
}


def ago(moment: datetime, now: datetime) -> str:
    """`3 d 8 h ago`."""
    seconds = max(0.0, (now - moment).total_seconds())
    return "now" if seconds < 1 else f"{format_duration(seconds)} ago"
