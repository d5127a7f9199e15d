"""Reads each group of settings from variables: PostgreSQL, Redis and its policy, the store, objectives, retention."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tmi_ops.error_codes import Code
from tmi_ops.errors import SettingsError
from tmi_ops.profile import Profile
from tmi_ops.settings.durations import duration_of
from tmi_ops.settings.facts import (
    OBJECTIVES,
    CachePolicy,
    Objectives,
    PostgresSettings,
    RedisSettings,
    Retain,
    RetentionPolicy,
    StoreSettings,
)

KEEP = "TMI_OPS_KEEP_"
WINDOW = "TMI_OPS_RECOVERY_WINDOW"
CACHE = "TMI_OPS_CACHE_"
RETAIN = "TMI_OPS_RETAIN"
_SSL_FILES = ("sslrootcert", "sslcert", "sslkey")
# The variable of each field.
POSTGRES_VARIABLES = {
    "host": "POSTGRES_HOST",
    "port": "POSTGRES_PORT",
    "user": "POSTGRES_USER",
    "password": "POSTGRES_PASSWORD",
    "database": "POSTGRES_DB",
    "sslmode": "POSTGRES_SSLMODE",
    "require_auth": "POSTGRES_REQUIRE_AUTH",
    "channel_binding": "POSTGRES_CHANNEL_BINDING",
    **{name: f"POSTGRES_{name.upper()}" for name in _SSL_FILES},
}
REDIS_VARIABLES, TMI_REDIS_VARIABLES = (
    {name: f"{prefix}{name.upper()}" for name in ("host", "port", "password", "db", "tls_enabled", "tls_ca_file")}
    for prefix in ("REDIS_", "TMI_REDIS_")
)
STORE_VARIABLES = {
    "directory": "TMI_OPS_STORE_DIRECTORY",
    "bucket": "TMI_OPS_S3_BUCKET",
    "prefix": "TMI_OPS_S3_PREFIX",
    "endpoint_url": "TMI_OPS_S3_ENDPOINT_URL",
    "region": "TMI_OPS_S3_REGION",
    "access_key_id": "TMI_OPS_S3_ACCESS_KEY_ID",
    "secret_access_key": "TMI_OPS_S3_SECRET_ACCESS_KEY",
    "age_identity_file": "TMI_OPS_AGE_IDENTITY_FILE",
    "signing_key_file": "TMI_OPS_SIGNING_KEY_FILE",
    "purpose": "TMI_OPS_S3_PURPOSE",
}


def postgres_from(values: Mapping[str, str]) -> PostgresSettings:
    """The database connection: TMI_DATABASE_URL, each part of it overridden by its POSTGRES_* variable."""
    fields = _from_url(values["TMI_DATABASE_URL"]) if values.get("TMI_DATABASE_URL") else {}
    fields |= _present(values, POSTGRES_VARIABLES)
    return PostgresSettings.model_validate(fields)


def _from_url(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    if parts.scheme not in ("postgres", "postgresql"):
        raise SettingsError(
            "TMI_DATABASE_URL is not a PostgreSQL URL.",
            hint="write it as postgresql://user:password@host:port/database?sslmode=require",
        )
    try:
        port = parts.port
    except ValueError:
        raise SettingsError(
            "TMI_DATABASE_URL has an invalid port.",
            hint="write it as postgresql://user:password@host:5432/database",
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


def redis_from(values: Mapping[str, str]) -> RedisSettings | None:
    """The cache connection: REDIS_* overrides the server's own TMI_REDIS_*, and both override TMI_REDIS_URL.

    None: no variable is set.
    """
    fields = _from_redis_url(values["TMI_REDIS_URL"]) if values.get("TMI_REDIS_URL") else {}
    for names in (TMI_REDIS_VARIABLES, REDIS_VARIABLES):
        fields |= _present(values, names)
    return RedisSettings.model_validate(fields) if fields else None


def _from_redis_url(url: str) -> dict[str, str]:
    malformed = SettingsError(
        "TMI_REDIS_URL is not a Redis URL.",
        hint="write it as redis://:password@host:6379/0, or rediss:// for TLS",
    )
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss"):
        raise malformed
    try:
        port = parts.port
    except ValueError:
        raise malformed from None
    fields = {
        "host": parts.hostname,
        "port": str(port) if port else None,
        "user": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "db": parts.path.strip("/") or None,
        "tls_enabled": "true" if parts.scheme == "rediss" else None,
    }
    return {key: value for key, value in fields.items() if value is not None}


def cache_policy_from(values: Mapping[str, str], profile: Profile) -> CachePolicy:
    """What happens to cached keys after a recovery of the database."""
    fields: dict[str, object] = dict(_present(values, {"sessions": "TMI_OPS_CACHE_SESSIONS"}))
    fields["drop"], fields["keep"] = (_words(values.get(f"{CACHE}{name}")) for name in ("DROP", "KEEP"))
    fields["patterns"] = profile.cache
    return CachePolicy.model_validate(fields)


def store_from(values: Mapping[str, str], home: Path, environment: str) -> StoreSettings:
    """The store, its encryption and its signatures."""
    fields: dict[str, object] = dict(_present(values, STORE_VARIABLES))
    fields["prefix"] = _prefix(str(fields.get("prefix", "tmi-ops")))
    fields["age_recipients"] = _words(values.get("TMI_OPS_AGE_RECIPIENTS"))
    fields["trusted_keys"] = _words(values.get("TMI_OPS_TRUSTED_KEYS"))
    if values.get(RETAIN):
        fields["retain"] = retain_of(values[RETAIN])
    fields["seen_file"] = home / "trust" / f"{environment}.seen.json"
    _require_one_place(fields)
    return StoreSettings.model_validate(fields)


def _require_one_place(fields: Mapping[str, object]) -> None:
    """Raises:
    SettingsError: the store is a directory and a bucket, or a directory that depends on where a process was started.
    """
    if "directory" not in fields:
        return
    if "bucket" in fields:
        raise SettingsError(
            "TMI_OPS_STORE_DIRECTORY and TMI_OPS_S3_BUCKET are both set, but there is one store.",
            hint="unset one of them: `tmi-ops settings` shows where each comes from",
        )
    if not Path(str(fields["directory"])).is_absolute():
        raise SettingsError(
            f"TMI_OPS_STORE_DIRECTORY is not an absolute path: {fields['directory']}.",
            hint="write it from the root on, such as /srv/backups",
        )


def _prefix(text: str) -> str:
    """The prefix without leading and trailing slashes.

    Raises:
        SettingsError: it has an empty part, which some S3 servers drop and others keep, so that objects would not be
            found again.
    """
    prefix = text.strip("/")
    if "//" in prefix:
        raise SettingsError(
            f"TMI_OPS_S3_PREFIX has an empty part: {prefix!r}. S3 servers disagree on what that means.",
            hint=f"set TMI_OPS_S3_PREFIX to {re.sub('/+', '/', prefix)!r}",
        )
    return prefix


def retain_of(text: str) -> Retain:
    """`30d`, `30d governance` or `30d|compliance`.

    Raises:
        SettingsError: it is malformed.
    """
    period, *modes = _words(text.replace("|", " "))
    mode = modes[0].upper() if modes else "GOVERNANCE"
    if len(modes) > 1 or mode not in ("GOVERNANCE", "COMPLIANCE"):
        raise SettingsError(
            f"{RETAIN} is malformed: {text!r}.", hint=f"set {RETAIN} to 30d, 30d|governance or 30d|compliance"
        )
    return Retain.model_validate({"period": duration_of(RETAIN, period), "mode": mode})


def objectives_from(environment: str, values: Mapping[str, str]) -> Objectives:
    """The environment's objectives: the guide's, or TMI_OPS_RPO and TMI_OPS_RTO.

    Raises:
        SettingsError: the environment is unknown and declares no objectives, or one is malformed.
    """
    given = {
        name: duration_of(f"TMI_OPS_{name.upper()}", values[f"TMI_OPS_{name.upper()}"])
        for name in ("rpo", "rto")
        if values.get(f"TMI_OPS_{name.upper()}")
    }
    known = OBJECTIVES.get(environment)
    if known is None and len(given) < 2:
        raise SettingsError(
            f"{environment!r} is an unknown environment.",
            hint=f"set TMI_ENV to one of {', '.join(OBJECTIVES)}, or declare your own by setting TMI_OPS_RPO and "
            f"TMI_OPS_RTO (for example 1h and 2h) in .env.{environment}",
            code=Code.ENVIRONMENT,
        )
    if known is None:
        return Objectives(**given)
    return known.model_copy(update=given)


def retention_from(values: Mapping[str, str]) -> RetentionPolicy:
    """The retention policy: the guide's seven days, or TMI_OPS_KEEP_* and TMI_OPS_RECOVERY_WINDOW."""
    counts = ("last", "daily", "weekly", "monthly", "yearly")
    fields: dict[str, object] = dict(_present(values, {name: f"{KEEP}{name.upper()}" for name in counts}))
    if values.get(WINDOW):
        fields["window"] = duration_of(WINDOW, values[WINDOW])
    return RetentionPolicy.model_validate(fields)


def _words(text: str | None) -> tuple[str, ...]:
    """Split at commas and spaces."""
    return tuple(word for word in re.split(r"[,\s]+", text or "") if word)


def _present(values: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    return {field: values[name] for field, name in names.items() if values.get(name)}
