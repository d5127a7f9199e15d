"""Where variables come from: the environment's .env files, and what the embedded stack wrote when it came up."""

from __future__ import annotations

from pathlib import Path

from dotenv import dotenv_values

STACK_ENV_FILE = "stack.env"


def env_file_names(environment: str) -> tuple[str, ...]:
    """The .env files of an environment, the later winning."""
    if environment == "development":
        return (".env.dev", ".env.development")
    return (f".env.{environment}",)


def env_files(directory: Path, environment: str) -> dict[str, str]:
    """What the environment's .env files in `directory` say; a file that is not there says nothing."""
    values: dict[str, str] = {}
    for name in env_file_names(environment):
        file = directory / name
        if file.is_file():
            values |= {key: value for key, value in dotenv_values(file).items() if value is not None}
    return values


_STACK_GROUPS = (
    ("POSTGRES_", "TMI_DATABASE_URL"),
    ("REDIS_", "TMI_REDIS_"),
    ("TMI_OPS_S3_",),
)


def with_stack(values: dict[str, str], home: Path, environment: str) -> tuple[dict[str, str], bool]:
    """Fill in the embedded stack's addresses, a whole group at a time: never its host with a stranger's password."""
    file = home / STACK_ENV_FILE
    if environment != "development" or not file.is_file():
        return values, False
    stack = {key: value for key, value in dotenv_values(file).items() if value is not None}
    merged = dict(values)
    used_for_postgres = False
    for prefixes in _STACK_GROUPS:
        if any(key.startswith(prefixes) for key in values):
            continue
        merged |= {key: value for key, value in stack.items() if key.startswith(prefixes)}
        used_for_postgres |= "POSTGRES_" in prefixes
    return merged, used_for_postgres
