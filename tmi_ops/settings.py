"""Environment variables and .env files -> Settings; recovery objectives by environment.

Names are the guide's (Environment Configuration): POSTGRES_*, REDIS_*; the TMI server's own
TMI_DATABASE_URL and TMI_REDIS_* are accepted too. The process wins over `.env.<environment>`, which
wins over what the embedded stack wrote when it came up.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from tmi_ops.errors import SettingsError

SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
_SSL_FILES = ("sslrootcert", "sslcert", "sslkey")
WEAK_SSLMODES = ("disable", "allow", "prefer")

STACK_ENV_FILE = "stack.env"
DEFAULT_HOME = ".tmi-ops"

_KEEP = "TMI_OPS_KEEP_"
_WINDOW = "TMI_OPS_RECOVERY_WINDOW"
_VARIABLE_PREFIXES = {
    "PostgresSettings": "POSTGRES_",
    "RedisSettings": "REDIS_",
    "StoreSettings": "TMI_OPS_S3_",
    "RetentionPolicy": _KEEP,
}

_TRUE_WORDS = {"1", "true", "yes", "on"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(d(?:ays?)?|h(?:ours?)?|m(?:in)?|s(?:ec)?)(?![a-z])", re.IGNORECASE)
_DURATION_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Objectives(_Facts):
    """What the environment promises (guide: Disaster Recovery Plan)."""

    rpo: timedelta
    rto: timedelta


OBJECTIVES: Mapping[str, Objectives] = {
    "development": Objectives(rpo=timedelta(hours=24), rto=timedelta(hours=4)),
    "staging": Objectives(rpo=timedelta(hours=4), rto=timedelta(hours=2)),
    "production": Objectives(rpo=timedelta(minutes=15), rto=timedelta(minutes=30)),
}


class PostgresSettings(_Facts):
    """How TMI's database is reached. The ssl* files are PEM, as libpq reads them; `sslkey` belongs to `sslcert`."""

    host: str = "localhost"
    port: int = 5432
    user: str = "postgres"
    password: SecretStr | None = None
    database: str = "tmi"
    sslmode: SslMode = "prefer"
    sslrootcert: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None

    def describe(self) -> str:
        """The address without the secret, for messages: `user@host:port/database`."""
        return f"{self.user}@{self.host}:{self.port}/{self.database}"


class RedisSettings(_Facts):
    """How TMI's cache is reached."""

    host: str = "localhost"
    port: int = 6379
    password: SecretStr | None = None
    db: int = 0

    def describe(self) -> str:
        return f"{self.host}:{self.port}/{self.db}"


class StoreSettings(_Facts):
    """Where backups live. Without keys of its own, boto3's standard credential chain is used.

    `age_recipients` are age public keys: with any, every object is encrypted before it leaves.
    `age_identity_file` holds the private key and is needed for reading only.
    """

    bucket: str | None = None
    prefix: str = "tmi-ops"
    endpoint_url: str | None = None
    region: str = "us-east-1"
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None
    age_recipients: tuple[str, ...] = ()
    age_identity_file: Path | None = None

    def describe(self) -> str:
        where = f" at {self.endpoint_url}" if self.endpoint_url else ""
        return f"s3://{self.bucket}/{self.prefix}{where}"


class RetentionPolicy(_Facts):
    """How much is kept of every database and of every cluster.

    `window`: every moment from so long ago until now stays recoverable (guide: 7 days), and every backup in it stays.
    The counts keep the newest backups, and the best one of as many days, weeks (ISO), months and years that have any,
    in UTC. A backup that is being taken may rest on one a day old, so no window is shorter than that.
    """

    last: int = Field(3, ge=1)
    daily: int = Field(7, ge=0)
    weekly: int = Field(4, ge=0)
    monthly: int = Field(6, ge=0)
    yearly: int = Field(0, ge=0)
    window: timedelta = Field(timedelta(days=7), ge=timedelta(days=1))

    def describe(self) -> str:
        """`7 days, the last 3, 7 daily, ...`"""
        periods = ("daily", "weekly", "monthly", "yearly")
        counts = [f"{getattr(self, name)} {name}" for name in periods if getattr(self, name)]
        return ", ".join([f"{self.window / timedelta(days=1):g} days", f"the last {self.last}", *counts])


class Settings(_Facts):
    """Everything tmi_ops is told. Secrets never show in its repr."""

    environment: str
    postgres: PostgresSettings
    redis: RedisSettings
    store: StoreSettings
    objectives: Objectives
    retention: RetentionPolicy = RetentionPolicy()
    home: Path
    pg_bindir: Path | None = None
    uses_embedded_stack: bool = False


_ENVIRONMENT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def load_settings(environ: Mapping[str, str] | None = None, directory: Path | None = None) -> Settings:
    """Read the settings of the environment that TMI_ENV names (default: development).

    Args:
        environ: the process's variables; `os.environ` when None.
        directory: where .env files are looked for; the working directory when None.

    Raises:
        SettingsError: an unknown environment, a malformed value, or a setting production refuses.
    """
    process = dict(os.environ if environ is None else environ)
    directory = directory or Path.cwd()
    environment = environment_name(process, directory)
    values = _env_files(directory, environment) | process
    home = (directory / values.get("TMI_OPS_HOME", DEFAULT_HOME)).resolve()
    values, embedded = _with_stack(values, home, environment)
    try:
        settings = Settings(
            environment=environment,
            postgres=_postgres(values),
            redis=_redis(values),
            store=_store(values),
            objectives=_objectives(environment, values),
            retention=_retention(values),
            home=home,
            pg_bindir=Path(values["TMI_OPS_PG_BINDIR"]) if values.get("TMI_OPS_PG_BINDIR") else None,
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
    process = dict(os.environ if environ is None else environ)
    environment = process.get("TMI_ENV", "development").strip()
    if not _ENVIRONMENT_NAME.fullmatch(environment):
        raise SettingsError(
            f"TMI_ENV names an impossible environment: {environment!r}.",
            next_step=f"use one of {', '.join(OBJECTIVES)}, or a name of letters, digits and _ of your own",
        )
    _objectives(environment, _env_files(directory or Path.cwd(), environment) | process)
    return environment


def read_variables(environ: Mapping[str, str] | None = None, directory: Path | None = None) -> dict[str, str]:
    """The variables settings are made of: the environment's .env files, overlaid by the process's. Holds secrets.

    Raises:
        SettingsError: as `environment_name`.
    """
    process = dict(os.environ if environ is None else environ)
    directory = directory or Path.cwd()
    return _env_files(directory, environment_name(process, directory)) | process


def read_objectives(environment: str, environ: Mapping[str, str] | None = None) -> Objectives:
    """What the environment promises; no secret is read.

    Raises:
        SettingsError: the environment is not known and declares no objectives, or one is malformed.
    """
    return _objectives(environment, read_variables(environ))


def env_file_names(environment: str) -> tuple[str, ...]:
    """The .env files of an environment, the later winning."""
    if environment == "development":
        return (".env.dev", ".env.development")
    return (f".env.{environment}",)


def parse_duration(text: str) -> timedelta:
    """Read `15m`, `4h`, `1d 12h` or `30 min`.

    Raises:
        ValueError: anything else.
    """
    parts = _DURATION.findall(text)
    if not parts or _DURATION.sub("", text).strip():
        raise ValueError(f"{text!r} is not a duration like 15m, 4h or 1d")
    return timedelta(seconds=sum(float(number) * _DURATION_SECONDS[unit[0].lower()] for number, unit in parts))


def _env_files(directory: Path, environment: str) -> dict[str, str]:
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


def _with_stack(values: dict[str, str], home: Path, environment: str) -> tuple[dict[str, str], bool]:
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


def _postgres(values: Mapping[str, str]) -> PostgresSettings:
    fields = _from_url(values["TMI_DATABASE_URL"]) if values.get("TMI_DATABASE_URL") else {}
    names = {
        "host": "POSTGRES_HOST",
        "port": "POSTGRES_PORT",
        "user": "POSTGRES_USER",
        "password": "POSTGRES_PASSWORD",
        "database": "POSTGRES_DB",
        "sslmode": "POSTGRES_SSLMODE",
        **{name: f"POSTGRES_{name.upper()}" for name in _SSL_FILES},
    }
    fields |= _present(values, names)
    return PostgresSettings.model_validate(fields)


def _from_url(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    if parts.scheme not in ("postgres", "postgresql"):
        raise SettingsError(
            "TMI_DATABASE_URL is not a PostgreSQL address.",
            next_step="write it as postgresql://user:password@host:port/database?sslmode=require",
        )
    try:
        port = parts.port
    except ValueError:
        raise SettingsError(
            "TMI_DATABASE_URL names a port that is not a number.",
            next_step="write it as postgresql://user:password@host:5432/database",
        ) from None
    query = parse_qs(parts.query)
    fields = {
        "host": parts.hostname,
        "port": str(port) if port else None,
        "user": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "database": unquote(parts.path.lstrip("/")) or None,
        "sslmode": query.get("sslmode", [None])[0],
        **{name: query.get(name, [None])[0] for name in _SSL_FILES},
    }
    return {key: value for key, value in fields.items() if value is not None}


def _redis(values: Mapping[str, str]) -> RedisSettings:
    fields: dict[str, str] = {}
    for prefix in ("TMI_REDIS_", "REDIS_"):
        fields |= _present(values, {name: f"{prefix}{name.upper()}" for name in ("host", "port", "password", "db")})
    return RedisSettings.model_validate(fields)


def _store(values: Mapping[str, str]) -> StoreSettings:
    names = {
        "bucket": "TMI_OPS_S3_BUCKET",
        "prefix": "TMI_OPS_S3_PREFIX",
        "endpoint_url": "TMI_OPS_S3_ENDPOINT_URL",
        "region": "TMI_OPS_S3_REGION",
        "access_key_id": "TMI_OPS_S3_ACCESS_KEY_ID",
        "secret_access_key": "TMI_OPS_S3_SECRET_ACCESS_KEY",
        "age_identity_file": "TMI_OPS_AGE_IDENTITY_FILE",
    }
    fields: dict[str, object] = dict(_present(values, names))
    fields["prefix"] = str(fields.get("prefix", "tmi-ops")).strip("/")
    recipients = re.split(r"[,\s]+", values.get("TMI_OPS_AGE_RECIPIENTS", ""))
    fields["age_recipients"] = tuple(recipient for recipient in recipients if recipient)
    return StoreSettings.model_validate(fields)


def _objectives(environment: str, values: Mapping[str, str]) -> Objectives:
    given = {
        name: _duration_setting(f"TMI_OPS_{name.upper()}", values[f"TMI_OPS_{name.upper()}"])
        for name in ("rpo", "rto")
        if values.get(f"TMI_OPS_{name.upper()}")
    }
    known = OBJECTIVES.get(environment)
    if known is None and len(given) < 2:
        raise SettingsError(
            f"TMI_ENV names an unknown environment: {environment!r}.",
            next_step=f"use one of {', '.join(OBJECTIVES)}, or declare your own by setting TMI_OPS_RPO and "
            f"TMI_OPS_RTO (for example 1h and 2h) in .env.{environment}",
        )
    if known is None:
        return Objectives(**given)
    return known.model_copy(update=given)


def _retention(values: Mapping[str, str]) -> RetentionPolicy:
    counts = ("last", "daily", "weekly", "monthly", "yearly")
    fields: dict[str, object] = dict(_present(values, {name: f"{_KEEP}{name.upper()}" for name in counts}))
    if values.get(_WINDOW):
        fields["window"] = _duration_setting(_WINDOW, values[_WINDOW])
    return RetentionPolicy.model_validate(fields)


def _duration_setting(name: str, text: str) -> timedelta:
    try:
        duration = parse_duration(text)
    except ValueError as error:
        raise SettingsError(f"{name} is malformed: {error}.", next_step=f"set {name} to a duration") from None
    if duration <= timedelta(0):
        raise SettingsError(f"{name} must be longer than zero.", next_step=f"set {name} to a duration")
    return duration


def _refuse_weak_tls(settings: Settings, values: Mapping[str, str]) -> None:
    allowed = values.get("TMI_OPS_ALLOW_INSECURE_POSTGRES", "").lower() in _TRUE_WORDS
    if settings.environment == "production" and settings.postgres.sslmode in WEAK_SSLMODES and not allowed:
        raise SettingsError(
            f"Production refuses sslmode={settings.postgres.sslmode}: the connection could be read or altered.",
            next_step="set POSTGRES_SSLMODE=require (better: verify-full with POSTGRES_SSLROOTCERT), "
            "or TMI_OPS_ALLOW_INSECURE_POSTGRES=1 if you accept it",
        )


def _present(values: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    return {field: values[name] for field, name in names.items() if values.get(name)}


def _readable(error: ValidationError) -> str:
    return "; ".join(f"{_variable(error.title, item['loc'])}: {item['msg']}" for item in error.errors())


def _variable(model: str, place: tuple[int | str, ...]) -> str:
    """The variable that a person would correct, from the model and the field that refused it."""
    field = ".".join(map(str, place))
    if field == "window":
        return _WINDOW
    prefix = _VARIABLE_PREFIXES.get(model)
    return f"{prefix}{'DB' if field == 'database' else field.upper()}" if prefix else field
