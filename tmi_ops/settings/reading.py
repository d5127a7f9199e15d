"""Reads Settings from variables, tmi-ops.toml and .env files. Without tmi-ops.toml, the process overrides
`.env.<environment>`, which overrides the embedded stack's file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from tmi_ops.error_codes import Code
from tmi_ops.errors import SettingsError
from tmi_ops.profile import Profile, read_profile
from tmi_ops.profile.reading import VARIABLE as PROFILE
from tmi_ops.settings.alerting import alerts_from
from tmi_ops.settings.facts import OBJECTIVES, WEAK_SSLMODES, Objectives, Settings, full_name
from tmi_ops.settings.fleet import Declared, find_fleet
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
from tmi_ops.settings.names import is_known
from tmi_ops.settings.purposes import LOGINS, Purpose, login_of
from tmi_ops.settings.sources import beside, env_file_names, env_files, ignored_beside, process_variables, with_stack
from tmi_ops.text import format_duration

DEFAULT_HOME = ".tmi-ops"
# The environment if none is named.
_UNSAID = "development"

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
# A name as for `-e` and TMI_ENV, or a declared environment; None: the one that TMI_ENV names.
Of = str | Declared | None
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Source:
    """The environment, and the variables that its settings are read from. `values` contains secrets if asked for."""

    environment: str
    database: str | None
    directory: Path
    values: dict[str, str]
    declared: Declared | None

    @property
    def name(self) -> str:
        return full_name(self.environment, self.database)

    @property
    def home(self) -> Path:
        """A directory for each declared database, so that they do not share runs, codes and travel state."""
        said = self.values.get("TMI_OPS_HOME", DEFAULT_HOME)
        return (self.directory / said / (self.declared.name if self.declared else "")).resolve()


def load_settings(
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
    purpose: Purpose | None = None,
    of: Of = None,
) -> Settings:
    """Read the settings of the environment that TMI_ENV names (default: development, or the only one of tmi-ops.toml).

    Args:
        purpose: what to connect for: with the role that the environment names for it, or POSTGRES_USER.
        environ: the process's variables; `os.environ` when None.
        directory: where tmi-ops.toml and .env files are; the working directory when None.
        of: another environment than TMI_ENV names.

    Raises:
        SettingsError: an unknown environment, a malformed value, or a setting that production refuses.
    """
    source = read_source(environ, directory, of)
    environment, home = source.environment, source.home
    values, embedded = with_stack(source.values, home, environment)
    profile = read_profile(values.get(PROFILE), source.directory)
    try:
        postgres = postgres_from(values)
        settings = Settings(
            environment=environment,
            database=source.database,
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
            variables=source.values,
        )
    except ValidationError as error:
        file = f"{source.declared.file.name}, " if source.declared else ""
        raise SettingsError(
            f"Settings of {source.name} are malformed: {_readable(error)}.",
            hint=f"correct the variable in the process or in {file}"
            f"{' or '.join(env_file_names(environment))}, then run `tmi-ops settings` to check it",
        ) from None
    _refuse_weak_tls(settings, values)
    return settings


def read_source(
    environ: Mapping[str, str] | None = None, directory: Path | None = None, of: Of = None, *, secrets: bool = True
) -> Source:
    """The environment, and the variables that its settings are read from.

    tmi-ops.toml overrides the process; without it, the process overrides the .env files.

    Args:
        secrets: follow the references of tmi-ops.toml to files and variables.

    Raises:
        SettingsError: the environment is unknown and declares no objectives, its name cannot be part of a key, or
            tmi-ops.toml has several and none was chosen.
    """
    process = process_variables(environ)
    directory = directory or Path.cwd()
    named = None if isinstance(of, Declared) else of
    declared = of if isinstance(of, Declared) else _declared(process, directory, of)
    if declared is not None:
        values = beside(declared.values(process, secrets=secrets), process, LOGINS)
        source = Source(declared.environment, declared.database, declared.directory, values, declared)
    else:
        environment = _environment(named or process.get("TMI_ENV", _UNSAID).strip())
        source = Source(environment, None, directory, env_files(directory, environment) | process, None)
    objectives = objectives_from(source.environment, source.values)
    if declared is not None and declared.database is not None:
        of_cluster = beside(declared.of_the_cluster().values(process, secrets=secrets), process, LOGINS)
        _refuse_stricter(source, objectives, objectives_from(source.environment, of_cluster))
    return source


def _refuse_stricter(source: Source, wanted: Objectives, of_cluster: Objectives) -> None:
    """Base backups and WAL are the whole cluster's, and its guards start them by the environment's objectives: nothing
    would keep, or notice, a stricter promise of one of its databases."""
    for name, own, shared in (
        ("RPO", wanted.rpo, of_cluster.rpo),
        ("RTO", wanted.rto, of_cluster.rto),
    ):
        if own < shared:
            promised, kept = (format_duration(one.total_seconds()) for one in (own, shared))
            raise SettingsError(
                f"{source.name} promises an {name} of {promised}, but its cluster {source.environment} one of {kept}.",
                detail="Base backups and WAL belong to the whole cluster and follow the environment's objectives.",
                hint=f"set TMI_OPS_{name} of {source.environment} to {promised}, or leave it out for {source.name}",
            )


def _declared(process: Mapping[str, str], directory: Path, name: str | None) -> Declared | None:
    fleet = find_fleet(process, directory)
    return None if fleet is None else fleet.choose(name or process.get("TMI_ENV", "").strip() or None)


def _environment(name: str) -> str:
    if not _ENVIRONMENT_NAME.fullmatch(name):
        raise SettingsError(
            f"{name!r} is not a valid name of an environment.",
            hint=f"set TMI_ENV to one of {', '.join(OBJECTIVES)}, or to your own name of letters, digits and _",
            code=Code.ENVIRONMENT,
        )
    return name


def environment_name(environ: Mapping[str, str] | None = None, directory: Path | None = None) -> str:
    """The environment that TMI_ENV names (default: development), as `production` or `production/billing`. Reads no
    secrets and checks no other setting.

    Raises:
        SettingsError: as `read_source`.
    """
    return read_source(environ, directory, secrets=False).name


def name_for_others(name: str, environ: Mapping[str, str] | None = None, directory: Path | None = None) -> str | None:
    """The environment that a command must name if it is read elsewhere than in this process's terminal: in an alert, in
    Dagster. None if it is the default in a shell without TMI_ENV.

    Raises:
        SettingsError: tmi-ops.toml cannot be read.
    """
    fleet = find_fleet(process_variables(environ), directory or Path.cwd())
    unsaid = [_UNSAID] if fleet is None else list(fleet.members)
    return None if unsaid == [name] else name


def read_variables(
    environ: Mapping[str, str] | None = None, directory: Path | None = None, of: Of = None
) -> dict[str, str]:
    """The variables that settings are read from. Contains secrets.

    Raises:
        SettingsError: as `read_source`.
    """
    return read_source(environ, directory, of).values


def unused_variables(environ: Mapping[str, str] | None = None, directory: Path | None = None) -> str:
    """A sentence about the process's variables that tmi-ops.toml overrides; empty if it overrides none.

    Raises:
        SettingsError: as `read_source`.
    """
    process = process_variables(environ)
    source = read_source(process, directory, secrets=False)
    if source.declared is None:
        return ""
    ignored = ignored_beside(source.declared.values(process, secrets=False), process, LOGINS)
    # Misspelt ones are reported as unknown.
    names = [name for name in ignored if is_known(name) or not name.startswith("TMI_OPS_")]
    if not names:
        return ""
    said = f"{', '.join(names)} of this process {'is' if len(names) == 1 else 'are'} not used"
    return f"{said}: {source.declared.file.name} has the settings of {source.name}."


def variables_of(settings: Settings) -> Mapping[str, str]:
    """What these settings were read from, or the variables of TMI_ENV. Contains secrets."""
    return read_variables() if settings.variables is None else settings.variables


def profile_of(environment: str, directory: Path | None = None) -> Profile:
    """The environment's profile. Reads no secrets.

    Raises:
        SettingsError: as `read_source`, or the profile cannot be read.
    """
    source = read_source(None, directory, environment, secrets=False)
    return read_profile(source.values.get(PROFILE), source.directory)


def _refuse_weak_tls(settings: Settings, values: Mapping[str, str]) -> None:
    allowed = values.get("TMI_OPS_ALLOW_INSECURE_POSTGRES", "").lower() in _TRUE_WORDS
    if settings.environment == "production" and settings.postgres.sslmode in WEAK_SSLMODES and not allowed:
        raise SettingsError(
            f"Production refuses sslmode={settings.postgres.sslmode}: the connection could be read or altered.",
            hint="set POSTGRES_SSLMODE=require (better: verify-full with POSTGRES_SSLROOTCERT), "
            "or TMI_OPS_ALLOW_INSECURE_POSTGRES=1 to accept the risk",
            code=Code.INSECURE_CONNECTION,
        )


def _readable(error: ValidationError) -> str:
    return "; ".join(f"{_variable(error.title, item['loc'])}: {item['msg']}" for item in error.errors())


def _variable(model: str, place: tuple[int | str, ...]) -> str:
    """The variable to correct, from the model and the field that refused it."""
    field = ".".join(map(str, place))
    if field == "window":
        return WINDOW
    if field.startswith("copy_libraries"):
        return COPY_LIBRARIES
    prefix = _VARIABLE_PREFIXES.get(model)
    return f"{prefix}{'DB' if field == 'database' else field.upper()}" if prefix else field
