"""How this command is called in the shell of the person who reads: what is printed to be typed must work as printed."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

NAME = "tmi-ops"


def called() -> str:
    """`tmi-ops` where the shell finds this very program by that name, else the path that works from here."""
    program = Path(sys.argv[0])
    found = shutil.which(NAME)
    if program.name != NAME or not program.exists() or (found and Path(found).samefile(program)):
        return NAME
    here = os.path.relpath(program)
    return shlex.quote(here if not here.startswith("..") else str(program.absolute()))
