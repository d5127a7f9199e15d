"""Variables and .env files -> Settings. The process wins over `.env.<environment>`, which wins over the stack's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from tmi_ops.errors import SettingsError
from tmi_ops.profile import Profile, read_profile
from tmi_ops.profile.reading import VARIABLE as PROFILE
from tmi_ops.settings.alerting import alerts_from
from tmi_ops.settings.facts import OBJECTIVES, WEAK_SSLMODES, Objectives, Settings
from tmi_ops.settings.groups import (
    CACHE,
    KEEP,
    WINDOW,
    cache_policy_from,
    objectives_from,
    postgres_from,
    redis_from,
    retention_from,
    store_from,
)
from tmi_ops.settings.purposes import Purpose, login_of
from tmi_ops.settings.sources import env_file_names, env_files, process_variables, with_stack

DEFAULT_HOME = ".tmi-ops"

_VARIABLE_PREFIXES = {
    "PostgresSettings": "POSTGRES_",
    "RedisSettings": "REDIS_",
    "StoreSettings": "TMI_OPS_S3_",
    "Retain": "TMI_OPS_RETAIN: ",
    "RetentionPolicy": KEEP,
    "CachePolicy": CACHE,
}

_TRUE_WORDS = {"1", "true", "yes", "on"}
COPY_LIBRARIES = "TMI_OPS_COPY_LIBRARIES"
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def load_settings(
    environ: Mapping[str, str] | None = None, directory: Path | None = None, purpose: Purpose | None = None
) -> Settings:
    """Read the settings of the environment that TMI_ENV names (default: development).

    Args:
        purpose: what is logged in for; the role that the environment names for it, else POSTGRES_USER.
        environ: the process's variables; `os.environ` when None.
        directory: where .env files are looked for; the working directory when None.

    Raises:
        SettingsError: an unknown environment, a malformed value, or a setting production refuses.
    """
    process = process_variables(environ)
    directory = directory or Path.cwd()
    environment = environment_name(process, directory)
    values = env_files(directory, environment) | process
    home = (directory / values.get("TMI_OPS_HOME", DEFAULT_HOME)).resolve()
    values, embedded = with_stack(values, home, environment)
    profile = read_profile(values.get(PROFILE), directory)
    try:
        postgres = postgres_from(values)
        settings = Settings(
            environment=environment,
            postgres=postgres if purpose is None else login_of(purpose, postgres, values),
            redis=redis_from(values),
            store=store_from(values, home, environment),
            objectives=objectives_from(environment, values),
            retention=retention_from(values),
            alerts=alerts_from(values),
            cache=cache_policy_from(values, profile),
            profile=profile,
            home=home,
            pg_bindir=Path(values["TMI_OPS_PG_BINDIR"]) if "TMI_OPS_PG_BINDIR" in values else None,
            copy_libraries=tuple(filter(None, re.split(r"[,\s]+", values.get(COPY_LIBRARIES, "")))),
            uses_embedded_stack=embedded,
        )
    except ValidationError as error:
        raise SettingsError(
            f"Settings of {environment} are malformed: {_readable(error)}.",
            next_step="correct the variable in the process or in "
            f"{' or '.join(env_file_names(environment))}, then run `tmi-ops settings` to see what is read",
        ) from None
    _refuse_weak_tls(settings, values)
    return settings


def environment_name(environ: Mapping[str, str] | None = None, directory: Path | None = None) -> str:
    """The environment that TMI_ENV names (default: development). Reads no secret and judges no other setting.

    Raises:
        SettingsError: it is unknown and declares no objectives of its own, or its name cannot be part of a key.
    """
    process = process_variables(environ)
    environment = process.get("TMI_ENV", "development").strip()
    if not _ENVIRONMENT_NAME.fullmatch(environment):
        raise SettingsError(
            f"TMI_ENV names an impossible environment: {environment!r}.",
            next_step=f"use one of {', '.join(OBJECTIVES)}, or a name of letters, digits and _ of your own",
        )
    objectives_from(environment, env_files(directory or Path.cwd(), environment) | process)
    return environment


def read_variables(environ: Mapping[str, str] | None = None, directory: Path | None = None) -> dict[str, str]:
    """The variables settings are made of: the environment's .env files, overlaid by the process's. Holds secrets.

    Raises:
        SettingsError: as `environment_name`.
    """
    process = process_variables(environ)
    directory = directory or Path.cwd()
    return env_files(directory, environment_name(process, directory)) | process


def read_objectives(environment: str, environ: Mapping[str, str] | None = None) -> Objectives:
    """What the environment promises; no secret is read.

    Raises:
        SettingsError: the environment is not known and declares no objectives, or one is malformed.
    """
    return objectives_from(environment, read_variables(environ))


def profile_of(environment: str, directory: Path | None = None) -> Profile:
    """The environment's profile; no secret is read.

    Raises:
        SettingsError: as `environment_name`, or the profile cannot be read.
    """
    directory = directory or Path.cwd()
    values = env_files(directory, environment) | process_variables(None)
    return read_profile(values.get(PROFILE), directory)


def _refuse_weak_tls(settings: Settings, values: Mapping[str, str]) -> None:
    allowed = values.get("TMI_OPS_ALLOW_INSECURE_POSTGRES", "").lower() in _TRUE_WORDS
    if settings.environment == "production" and settings.postgres.sslmode in WEAK_SSLMODES and not allowed:
        raise SettingsError(
            f"Production refuses sslmode={settings.postgres.sslmode}: the connection could be read or altered.",
            next_step="set POSTGRES_SSLMODE=require (better: verify-full with POSTGRES_SSLROOTCERT), "
            "or TMI_OPS_ALLOW_INSECURE_POSTGRES=1 if you accept it",
        )


def _readable(error: ValidationError) -> str:
    return "; ".join(f"{_variable(error.title, item['loc'])}: {item['msg']}" for item in error.errors())


def _variable(model: str, place: tuple[int | str, ...]) -> str:
    """The variable that a person would correct, from the model and the field that refused it."""
    field = ".".join(map(str, place))
    if field == "window":
        return WINDOW
    if field.startswith("copy_libraries"):
        return COPY_LIBRARIES
    prefix = _VARIABLE_PREFIXES.get(model)
    return f"{prefix}{'DB' if field == 'database' else field.upper()}" if prefix else field
