"""The settings as frozen values. Secrets never show in their reprs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from tmi_ops.profile import Profile
from tmi_ops.profile.cache_keys import KeyPattern, KeyPurpose
from tmi_ops.profile.tmi import TMI

_CREDENTIALS = re.compile(r"(?<=://)[^/\s]*@")
SessionPolicy = Literal["drop-sessions", "keep-sessions"]
# A name below PostgreSQL's own $libdir: never a path.
LibraryName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
WEAK_SSLMODES = ("disable", "allow", "prefer")
_HIGHEST_PORT = 65535


def without_credentials(text: str) -> str:
    """The text with user and password removed from all URLs."""
    return _CREDENTIALS.sub("", text)


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Objectives(_Facts):
    """Recovery objectives (guide: Disaster Recovery Plan)."""

    rpo: timedelta
    rto: timedelta


OBJECTIVES: Mapping[str, Objectives] = {
    "development": Objectives(rpo=timedelta(hours=24), rto=timedelta(hours=4)),
    "staging": Objectives(rpo=timedelta(hours=4), rto=timedelta(hours=2)),
    "production": Objectives(rpo=timedelta(minutes=15), rto=timedelta(minutes=30)),
}


class PostgresSettings(_Facts):
    """The database connection. The ssl* files are PEM, as libpq reads them; `sslkey` belongs to `sslcert`.

    `options` is libpq's: settings for every session, which servers that we run ourselves need.

    `require_auth` and `channel_binding` are libpq's. By default no password is sent in the clear to a server that was
    not verified, because an impostor would get it.
    """

    host: str = "localhost"
    port: int = Field(5432, ge=1, le=_HIGHEST_PORT)
    user: str = "postgres"
    password: SecretStr | None = None
    database: str = "tmi"
    sslmode: SslMode = "prefer"
    sslrootcert: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None
    require_auth: str | None = None
    channel_binding: Literal["disable", "prefer", "require"] | None = None
    options: str = ""

    def describe(self) -> str:
        """The address without the password, for messages: `user@host:port/database`."""
        return f"{self.user}@{self.host}:{self.port}/{self.database}"


class RedisSettings(_Facts):
    """The cache connection. Without `tls_ca_file` the server's certificate is checked with the system's CAs."""

    host: str = "localhost"
    port: int = Field(6379, ge=1, le=_HIGHEST_PORT)
    user: str | None = None
    password: SecretStr | None = None
    db: int = Field(0, ge=0)
    tls_enabled: bool = False
    tls_ca_file: str | None = None

    def describe(self) -> str:
        return f"{self.host}:{self.port}/{self.db}"


class CachePolicy(_Facts):
    """What happens to cached keys after a recovery, in addition to what the profile declares.

    `sessions`: whether all users sign in again. `drop` and `keep` are patterns like `acme:*` of other programs' keys;
    they override the profile, but a pattern of revoked tokens is never dropped.
    """

    sessions: SessionPolicy = "drop-sessions"
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    patterns: tuple[KeyPattern, ...] = TMI.cache

    @property
    def revocations(self) -> tuple[str, ...]:
        """Patterns of keys that record revoked tokens or credentials, the shortest first."""
        revoked = (one.pattern for one in self.patterns if one.purpose is KeyPurpose.REVOCATION)
        return tuple(sorted(revoked, key=len))


class Retain(_Facts):
    """How long Object Lock protects an object after it was stored. In compliance mode nobody can shorten it."""

    period: timedelta = Field(ge=timedelta(minutes=1))
    mode: Literal["GOVERNANCE", "COMPLIANCE"] = "GOVERNANCE"

    def describe(self) -> str:
        """`30 days, governance`"""
        return f"{self.period / timedelta(days=1):g} days, {self.mode.lower()}"


# What the access keys on this host are for.
StorePurpose = Literal["everything", "write", "prove", "prune"]


class StoreSettings(_Facts):
    """The store: a bucket, or a directory of this machine. Without access keys, AWS's default credential chain is used.

    `directory`: absolute; then there is no bucket, and nothing that only a server has: keys, locks, versions.
    `age_recipients`: age public keys; with any, every object is encrypted before it is sent.
    `age_identity_file`: the private key; needed only for reading.
    `signing_key_file`: minisign's secret key; with it every document is signed. `trusted_keys`: public keys, or files
    of them; with any, documents that none of them signed are refused.
    `seen_file`: this machine's record of the newest state that it has seen in the store.
    `retain`: the Object Lock that we set; None: none. `purpose`: what the access keys on this host are for.
    """

    bucket: str | None = None
    directory: Path | None = None
    prefix: str = "tmi-ops"
    endpoint_url: str | None = None
    region: str = "us-east-1"
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None
    age_recipients: tuple[str, ...] = ()
    age_identity_file: Path | None = None
    signing_key_file: Path | None = None
    trusted_keys: tuple[str, ...] = ()
    seen_file: Path | None = None
    retain: Retain | None = None
    purpose: StorePurpose = "everything"

    @property
    def public_endpoint(self) -> str:
        """The endpoint's URL without user and password."""
        return without_credentials(self.endpoint_url or "")

    @property
    def is_configured(self) -> bool:
        return bool(self.bucket) or self.directory is not None

    def root(self, environment: str) -> str:
        """What precedes the keys of an environment's objects, with a slash at its end."""
        return "/".join(part for part in (self.prefix.strip("/"), environment) if part) + "/"

    def address(self, environment: str) -> str:
        """Where an environment's objects are, as a URL or a path, with a slash at its end."""
        return f"{self.directory or 's3://' + (self.bucket or 'BUCKET')}/{self.root(environment)}"

    def describe(self) -> str:
        if self.directory is not None:
            return str(self.directory / self.prefix)
        if self.bucket is None:
            return "no store (TMI_OPS_S3_BUCKET is not set)"
        where = f" at {self.public_endpoint}" if self.endpoint_url else ""
        return f"s3://{self.bucket}/{self.prefix}{where}"


class RetentionPolicy(_Facts):
    """What is kept of every database and of every cluster.

    `window`: every moment since so long ago stays recoverable (guide: 7 days), and every backup in it is kept.
    The counts keep the newest backups, and the best one of each of so many days, weeks (ISO), months and years that
    have any, in UTC. A backup that is being taken may depend on one that is a day old, so the window is never shorter.
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


class AlertSettings(_Facts):
    """Alert channels as apprise URLs, by severity, and the external monitor.

    `urls` receive everything, `urls_warning` warnings and critical alerts, `urls_critical` critical ones only. An open
    alert is sent again after `repeat`.
    """

    urls: tuple[SecretStr, ...] = ()
    urls_warning: tuple[SecretStr, ...] = ()
    urls_critical: tuple[SecretStr, ...] = ()
    repeat: timedelta = timedelta(hours=4)
    heartbeat_url: SecretStr | None = None

    def describe(self) -> str:
        """The number of channels by severity, without URLs."""
        counts = {"all": self.urls, "warning and worse": self.urls_warning, "critical": self.urls_critical}
        return ", ".join(f"{len(urls)} for {words}" for words, urls in counts.items() if urls) or "no channels"


def full_name(environment: str, database: str | None) -> str:
    """`production`, or `production/billing` for another database of its cluster."""
    return f"{environment}/{database}" if database else environment


class Settings(_Facts):
    """All settings. Secrets never show in its repr.

    `database`: its name in tmi-ops.toml, if it is a further database of the environment's cluster.
    `variables`: what the settings were read from; None if they were made otherwise. Contains secrets.
    `redis`: None if no variable names a cache; a server that merely listens on Redis's port is not TMI's.
    `copy_libraries`: what servers on restored files load when they start (shared_preload_libraries).
    """

    environment: str
    database: str | None = None
    postgres: PostgresSettings
    redis: RedisSettings | None = None
    store: StoreSettings
    objectives: Objectives
    retention: RetentionPolicy = RetentionPolicy()
    alerts: AlertSettings = AlertSettings()
    cache: CachePolicy = CachePolicy()
    profile: Profile = TMI
    home: Path
    pg_bindir: Path | None = None
    copy_libraries: tuple[LibraryName, ...] = ()
    uses_embedded_stack: bool = False
    variables: Mapping[str, str] | None = Field(default=None, repr=False, exclude=True)

    @property
    def name(self) -> str:
        return full_name(self.environment, self.database)

    @property
    def own_folder(self) -> str:
        """The folder of records about this database alone, in the environment's part of the store."""
        return f"databases/{self.database}/" if self.database else ""
