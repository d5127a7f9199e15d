"""How this command is called in the shell of the person who reads: what is printed to be typed must work as printed."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from tmi_ops.typed import texts_with_environment, with_environment

NAME = "tmi-ops"
# The environment that printed commands must name, because this one was told of it in a way that the next is not.
_carried: str | None = None


def carry(name: str | None) -> None:
    """From now on every command that is printed says `-e NAME`; None: it works without."""
    global _carried
    _carried = name


def as_typed(text: str) -> str:
    """A text whose commands work as printed."""
    return with_environment(text, _carried)


def facts_as_typed(facts: Any) -> Any:
    """The same of what `--json` prints."""
    return texts_with_environment(facts, _carried)


def carried() -> str | None:
    """The environment that printed commands name."""
    return _carried


def called() -> str:
    """`tmi-ops` where the shell finds this very program by that name, else the path that works from here."""
    program = Path(sys.argv[0])
    found = shutil.which(NAME)
    if program.name != NAME or not program.exists() or (found and Path(found).samefile(program)):
        return NAME
    here = os.path.relpath(program)
    return shlex.quote(here if not here.startswith("..") else str(program.absolute()))
