"""Every command that the documents name exists, with the options they give it."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from tmi_ops.cli.main import tmi_ops

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "deploy" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_COMMAND = re.compile(r"(?:^|`|\$\(|\()tmi-ops((?: +[a-z][a-z-]*| +--[a-z][a-z-]*)+)", re.MULTILINE)


def named_in(document: Path) -> set[str]:
    """Command lines up to their first argument, such as `backup base --incremental`."""
    return {" ".join(match[1].split()) for match in _COMMAND.finditer(document.read_text())}


def refusal(line: str, command: click.Command = tmi_ops) -> str | None:
    """Why the command line (without the program's name) cannot be, or None."""
    for word in line.split():
        if word.startswith("--"):
            known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
            if word not in known | {"--help"}:
                return f"{command.name} has no {word}"
        elif isinstance(command, click.Group):
            found = command.get_command(click.Context(command), word)
            if found is None:
                return f"{command.name} has no {word}"
            command = found
    return None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_every_command_that_a_document_names_exists(document: Path) -> None:
    lines = named_in(document)
    assert lines
    assert {line: refusal(line) for line in lines if refusal(line)} == {}


def test_a_command_that_is_not_there_would_be_found() -> None:
    assert refusal("conjure") == "tmi-ops has no conjure"
    assert refusal("backup base --quickly") == "base has no --quickly"
    assert refusal("backup base --incremental") is None
