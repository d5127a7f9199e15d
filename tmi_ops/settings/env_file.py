"""Writing the file that an environment's settings are kept in: beside what it holds already, for its owner alone."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from tmi_ops.errors import SettingsError
from tmi_ops.private import write_private
from tmi_ops.settings.sources import read_env_file

_ASSIGNED = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=", re.MULTILINE)
_PLAIN = re.compile(r"[\w./:@,%+=-]*")


def with_values(text: str, values: Mapping[str, str]) -> str:
    """The file's text with these variables set: those that it sets already in their place, the others at its end."""
    set_here = set(_ASSIGNED.findall(text))
    lines = [_replaced(line, values) for line in text.splitlines()]
    lines += [f"{name}={quoted(value)}" for name, value in values.items() if name not in set_here]
    return "".join(f"{line}\n" for line in lines)


def write_values(file: Path, values: Mapping[str, str]) -> tuple[str, ...]:
    """Set variables in a file, made where it is absent, mode 0600. Returns the names whose values changed.

    Raises:
        SettingsError: the file cannot be read or written, or a person's value has what it cannot hold.
    """
    for name, value in values.items():
        if "\n" in value or "\r" in value:
            raise SettingsError(f"The value of {name} has a line break.", hint="give it on one line")
        if "${" in value:
            raise SettingsError(
                f"The value of {name} holds ${{, which stands for a variable in such a file.",
                hint="have it in the environment of the services instead, or choose another",
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
            f"{file} cannot be written: {error.strerror}.", hint="run this where you may write"
        ) from None


def quoted(value: str) -> str:
    """As such a file reads it back: in single quotes where anything in it could mean something."""
    if value and _PLAIN.fullmatch(value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _replaced(line: str, values: Mapping[str, str]) -> str:
    found = _ASSIGNED.match(line)
    return f"{found[1]}={quoted(values[found[1]])}" if found and found[1] in values else line
