"""Writes settings to an environment's .env file: keeps its other lines, readable by its owner only."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from tmi_ops.error_codes import Code
from tmi_ops.errors import SettingsError
from tmi_ops.private import write_private
from tmi_ops.settings.sources import read_env_file

_ASSIGNED = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=", re.MULTILINE)
_PLAIN = re.compile(r"[\w./:@,%+=-]*")


def with_values(text: str, values: Mapping[str, str]) -> str:
    """The file's text with these variables set: existing ones are replaced in place, new ones are appended."""
    set_here = set(_ASSIGNED.findall(text))
    lines = [_replaced(line, values) for line in text.splitlines()]
    lines += [f"{name}={quoted(value)}" for name, value in values.items() if name not in set_here]
    return "".join(f"{line}\n" for line in lines)


def write_values(file: Path, values: Mapping[str, str]) -> tuple[str, ...]:
    """Set variables in a file; it is created if missing, with mode 0600. Returns the names whose values changed.

    Raises:
        SettingsError: the file cannot be read or written, or a value cannot be represented in it.
    """
    for name, value in values.items():
        if "\n" in value or "\r" in value:
            raise SettingsError(f"The value of {name} contains a line break.", hint="give it on one line")
        if "${" in value:
            raise SettingsError(
                f"The value of {name} contains ${{, which refers to a variable in a .env file.",
                hint="set it in the environment of the services instead, or choose another value",
            )
    known = read_env_file(file) if file.exists() else {}
    _write(file, with_values(file.read_text(encoding="utf-8") if file.exists() else "", values))
    return tuple(name for name, value in values.items() if known.get(name) != value)


def remove_values(file: Path, names: Collection[str]) -> None:
    """Remove variables from a file; its other lines stay as they are.

    Raises:
        SettingsError: the file cannot be written.
    """
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if not (found := _ASSIGNED.match(line)) or found[1] not in names]
    _write(file, "".join(kept))


def _write(file: Path, text: str) -> None:
    try:
        write_private(file, text)
    except OSError as error:
        raise SettingsError(
            f"{file} cannot be written: {error.strerror}.",
            hint="run this in a directory that you can write to",
            code=Code.SETTINGS_FILE,
        ) from None


def quoted(value: str) -> str:
    """The value as a .env file needs it: in single quotes if it has special characters."""
    if value and _PLAIN.fullmatch(value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _replaced(line: str, values: Mapping[str, str]) -> str:
    found = _ASSIGNED.match(line)
    return f"{found[1]}={quoted(values[found[1]])}" if found and found[1] in values else line
