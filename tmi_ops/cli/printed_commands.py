"""How to call this program from the present shell: a printed command must work as printed."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from tmi_ops.command_texts import all_with_environment, with_environment

NAME = "tmi-ops"
# The environment that printed commands must name, because it was given by an option of this command.
_carried: str | None = None


def carry(name: str | None) -> None:
    """Make every printed command name the environment with `-e NAME`; None: it does not need to."""
    global _carried
    _carried = name


def as_typed(text: str) -> str:
    """The text with the environment in its commands."""
    return with_environment(text, _carried)


def facts_as_typed(facts: Any) -> Any:
    """The same for what `--json` prints."""
    return all_with_environment(facts, _carried)


def carried() -> str | None:
    """The environment that printed commands name."""
    return _carried


def program_name() -> str:
    """`tmi-ops` if the shell finds this program by that name, else a path that works from here."""
    program = Path(sys.argv[0])
    found = shutil.which(NAME)
    if program.name != NAME or not program.exists() or (found and Path(found).samefile(program)):
        return NAME
    here = os.path.relpath(program)
    return shlex.quote(here if not here.startswith("..") else str(program.absolute()))
