"""Commands in texts. Whoever writes one writes `tmi-ops status`; where texts leave for people, it is told whose it is.

`tmi-ops` is the command, tmi_ops the product: a text that says the one and means the other is changed wrongly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

# Before what names a command; neither a path that ends so nor what chooses an environment already.
_COMMAND = re.compile(r"(?<![\w./-])tmi-ops(?= [a-z])")


def ends_of_commands(text: str) -> list[int]:
    """The offsets at which `-e NAME` is to stand: right behind each `tmi-ops` that a command follows."""
    return [found.end() for found in _COMMAND.finditer(text)]


def inserted(name: str) -> str:
    """What chooses an environment on the command line."""
    return f" -e {name}"


def with_environment(text: str, name: str | None) -> str:
    """The text with `-e NAME` in each command that lacks it; None: commands work without."""
    return _COMMAND.sub(f"tmi-ops{inserted(name)}", text) if name else text


def texts_with_environment(value: Any, name: str | None) -> Any:
    """The same in every text of nested dicts, lists and tuples, as they are made for JSON."""
    return mapped_texts(value, lambda text: with_environment(text, name))


def mapped_texts(value: Any, change: Callable[[str], str]) -> Any:
    """What nested dicts, lists and tuples hold, each text changed; keys stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: mapped_texts(one, change) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [mapped_texts(one, change) for one in value]
    return value
