"""Adds the environment to commands in texts: code writes `tmi-ops status`, people see `tmi-ops -e NAME status`.

`tmi-ops` is the command, tmi_ops the product; a text that uses the wrong one would be changed wrongly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

# Followed by a command; not the end of a path, and not one that has an environment already.
_COMMAND = re.compile(r"(?<![\w./-])tmi-ops(?= [a-z])")


def ends_of_commands(text: str) -> list[int]:
    """The offsets for `-e NAME`: after each `tmi-ops` that a command follows."""
    return [found.end() for found in _COMMAND.finditer(text)]


def inserted(name: str) -> str:
    """The option that chooses an environment."""
    return f" -e {name}"


def with_environment(text: str, name: str | None) -> str:
    """The text with `-e NAME` in each command that lacks it; None: unchanged."""
    return _COMMAND.sub(f"tmi-ops{inserted(name)}", text) if name else text


def all_with_environment(value: Any, name: str | None) -> Any:
    """The same for every text in nested dicts, lists and tuples, for JSON."""
    return mapped_texts(value, lambda text: with_environment(text, name))


def mapped_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Nested dicts, lists and tuples with each text changed, but not the keys."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: mapped_texts(one, change) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [mapped_texts(one, change) for one in value]
    return value
