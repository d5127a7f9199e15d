"""What a recovery that is launched from Dagster's page may be told, and who says yes to it.

Dagster's page has no login: whoever reaches it fills in the launchpad. So paths, addresses and SQL are taken from
there only where the settings of the account that runs the recovery allow them, and the yes is a code, good once, that
only the command of that account prints.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tmi_ops.errors import SettingsError
from tmi_ops.private import make_directory, write_private
from tmi_ops.settings import read_variables

CODE_LASTS = timedelta(minutes=15)
CODE_LETTERS = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # none that is read as another one
_CODES = "codes"
_LIMITS = {"directories": "DIRECTORIES", "addresses": "ADDRESSES", "sql": "SQL"}
_PREFIX = "TMI_OPS_RECOVERY_"
_TRUE = {"1", "true", "yes", "on"}


@dataclass(frozen=True)
class LaunchLimits:
    """`directories`: below them files and clusters may be put; `addresses`: where a server may listen, and whom it may
    let in; `sql`: whether a condition in SQL is taken."""

    directories: tuple[Path, ...] = ()
    addresses: tuple[str, ...] = ()
    sql: bool = False


def read_limits(environ: Mapping[str, str] | None = None) -> LaunchLimits:
    """TMI_OPS_RECOVERY_DIRECTORIES, _ADDRESSES and _SQL; nothing is allowed where they are unset."""
    values = read_variables(environ)
    said = {name: values.get(f"{_PREFIX}{suffix}", "") for name, suffix in _LIMITS.items()}
    return LaunchLimits(
        directories=tuple(Path(word) for word in said["directories"].replace(":", ",").split(",") if word.strip()),
        addresses=tuple(said["addresses"].replace(",", " ").split()),
        sql=said["sql"].lower() in _TRUE,
    )


def refuse_beyond(
    limits: LaunchLimits,
    paths: Mapping[str, str | None],
    addresses: Mapping[str, str | Sequence[str] | None],
    sql: Mapping[str, str | None],
) -> None:
    """See that everything the launchpad says is allowed; what is None was not said.

    Raises:
        SettingsError: it names the first field that is not, and the setting that would allow it.
    """
    for field, path in paths.items():
        if path is not None and not _is_below(Path(path), limits.directories):
            raise _refused(field, path, "DIRECTORIES", "a directory above it")
    for field, said in addresses.items():
        words = [said] if isinstance(said, str) else said or ()
        for word in words:
            if word not in limits.addresses:
                raise _refused(field, word, "ADDRESSES", "this address")
    for field, condition in sql.items():
        if condition is not None and not limits.sql:
            raise _refused(field, condition, "SQL", "`on`")


def new_code(home: Path, environment: str, job: str, now: datetime) -> str:
    """A code that says yes to one launch of `job` within `CODE_LASTS`. Only its hash is kept."""
    directory = home / _CODES
    make_directory(directory)
    for old in directory.iterdir():
        if _ends(old) < now:
            old.unlink(missing_ok=True)
    letters = "".join(secrets.choice(CODE_LETTERS) for _ in range(8))
    code = f"{letters[:4]}-{letters[4:]}"
    write_private(directory / _hash(code, environment, job), (now + CODE_LASTS).astimezone(UTC).isoformat())
    return code


def use_code(home: Path, environment: str, job: str, code: str, now: datetime) -> None:
    """Take the yes of a code; it is good for nothing afterwards, whatever becomes of the run.

    Raises:
        SettingsError: it is none, was used, has ended, or is for another job or environment.
    """
    file = home / _CODES / _hash(code, environment, job)
    ends = _ends(file)
    try:
        file.unlink()
    except OSError:
        ends = datetime.min.replace(tzinfo=UTC)
    if ends < now:
        raise SettingsError(
            f"The run was not confirmed: {code!r} is no code for {job} of {environment}, was used, or has ended."
            if code
            else "The run was not confirmed: it has no code.",
            next_step=f"as the account that runs it: `tmi-ops recover code {job}`, then launch it with `code`",
        )


def _hash(code: str, environment: str, job: str) -> str:
    return hashlib.sha256(f"{code.strip().upper()} {environment} {job}".encode()).hexdigest()


def _ends(file: Path) -> datetime:
    """Long ago, where that cannot be told."""
    try:
        return datetime.fromisoformat(file.read_text())
    except (OSError, ValueError):
        return datetime.min.replace(tzinfo=UTC)


def _is_below(path: Path, directories: Iterable[Path]) -> bool:
    """Links are followed, so that none leads out."""
    place = path.absolute().resolve()
    return any(place != root.resolve() and place.is_relative_to(root.resolve()) for root in directories)


def _refused(field: str, said: str, setting: str, what: str) -> SettingsError:
    return SettingsError(
        f"`{field}` says {said!r}, which is not taken from Dagster's page.",
        next_step=f"let it, in the settings of the account that runs it: {_PREFIX}{setting} must hold {what}; or use "
        "the command `tmi-ops recover`",
    )
