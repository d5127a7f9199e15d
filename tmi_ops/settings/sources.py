"""The sources of variables: the process, the environment's .env files, and the embedded stack's file.

An empty variable counts as unset: `POSTGRES_HOST=` neither hides the host in a file nor counts as configured.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from dotenv import dotenv_values

from tmi_ops.error_codes import Code
from tmi_ops.errors import SettingsError

STACK_ENV_FILE = "stack.env"


def env_file_names(name: str) -> tuple[str, ...]:
    """The .env files of an environment, or of `environment/database`; a later one overrides an earlier one."""
    if name == "development":
        return (".env.dev", ".env.development")
    return (f".env.{name.replace('/', '.')}",)


def process_variables(environ: Mapping[str, str] | None) -> dict[str, str]:
    """The process's variables that are not empty; `os.environ` when None is given."""
    return _saying_something(os.environ if environ is None else environ)


def env_files(directory: Path, environment: str) -> dict[str, str]:
    """The variables in the environment's .env files in `directory`.

    Raises:
        SettingsError: one exists and cannot be read.
    """
    values: dict[str, str] = {}
    for name in env_file_names(environment):
        if (directory / name).is_file():
            values |= read_env_file(directory / name)
    return values


# A source that sets one variable of a group sets the group: the host of one never meets the password of another.
_GROUPS = (
    ("POSTGRES_", "TMI_DATABASE_URL"),
    ("REDIS_", "TMI_REDIS_"),
    ("TMI_OPS_S3_", "TMI_OPS_STORE_DIRECTORY"),
)


def with_stack(values: dict[str, str], home: Path, environment: str) -> tuple[dict[str, str], bool]:
    """Fill in the embedded stack's variables, a group at a time."""
    file = home / STACK_ENV_FILE
    if environment != "development" or not file.is_file():
        return values, False
    stack = read_env_file(file)
    merged = dict(values)
    used_for_postgres = False
    for prefixes in _GROUPS:
        if any(key.startswith(prefixes) for key in values):
            continue
        merged |= {key: value for key, value in stack.items() if key.startswith(prefixes)}
        used_for_postgres |= "POSTGRES_" in prefixes
    return merged, used_for_postgres


def beside(declared: dict[str, str], process: Mapping[str, str], logins: Collection[str]) -> dict[str, str]:
    """The declared variables, plus those of the process that it does not set, except for connections and logins: a
    variable that happens to be set must not point staging at production.

    Args:
        logins: variables of roles and their passwords.
    """
    return {name: value for name, value in process.items() if not _is_of_a_group(name, logins)} | declared


def ignored_beside(declared: Mapping[str, str], process: Mapping[str, str], logins: Collection[str]) -> list[str]:
    """The process's variables that `beside` does not use and that have another value, by name."""
    unused = (name for name in process if name in declared or _is_of_a_group(name, logins))
    return sorted(name for name in unused if declared.get(name) != process[name])


def _is_of_a_group(name: str, logins: Collection[str]) -> bool:
    return name in logins or any(name.startswith(prefixes) for prefixes in _GROUPS)


def read_env_file(file: Path) -> dict[str, str]:
    """The variables in a file.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        return _saying_something(dotenv_values(file, encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(
            f"{file} cannot be read: {reason}.",
            hint="make it a readable text file, or move it away",
            code=Code.SETTINGS_FILE,
        ) from None


def _saying_something(values: Mapping[str, str | None]) -> dict[str, str]:
    return {key: value for key, value in values.items() if value}
