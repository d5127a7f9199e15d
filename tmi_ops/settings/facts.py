"""What tmi_ops is told, as frozen values. Secrets never show in their reprs."""

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
    """Text in which no address holds a user or password any more."""
    return _CREDENTIALS.sub("", text)


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
    """How TMI's database is reached. The ssl* files are PEM, as libpq reads them; `sslkey` belongs to `sslcert`.

    `options` is libpq's: settings that every session of ours asks for, which a server of our own needs.

    `require_auth` and `channel_binding` are libpq's. Unless told, no password is sent in the clear to a server that was
    not verified: whoever answers in its place would have it.
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
        """The address without the secret, for messages: `user@host:port/database`."""
        return f"{self.user}@{self.host}:{self.port}/{self.database}"


class RedisSettings(_Facts):
    """How TMI's cache is reached. Without `tls_ca_file` the system's authorities vouch for the server."""

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
    """What becomes of cached keys when the database jumps in time, beside what the profile knows of the application's.

    `sessions`: whether everybody signs in again. `drop` and `keep` are patterns like `acme:*` of other programs' keys;
    they win over what is declared, but a pattern of revoked tokens is never dropped.
    """

    sessions: SessionPolicy = "drop-sessions"
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    patterns: tuple[KeyPattern, ...] = TMI.cache

    @property
    def revocations(self) -> tuple[str, ...]:
        """Patterns of what says that a token or a credential was revoked, the shortest first."""
        revoked = (one.pattern for one in self.patterns if one.purpose is KeyPurpose.REVOCATION)
        return tuple(sorted(revoked, key=len))


class Retain(_Facts):
    """How long Object Lock keeps what is stored, from then on. In compliance mode nobody at all can shorten it."""

    period: timedelta = Field(ge=timedelta(minutes=1))
    mode: Literal["GOVERNANCE", "COMPLIANCE"] = "GOVERNANCE"

    def describe(self) -> str:
        """`30 days, governance`"""
        return f"{self.period / timedelta(days=1):g} days, {self.mode.lower()}"


# What the keys of the store are for on this host.
StorePurpose = Literal["everything", "write", "prove", "prune"]


class StoreSettings(_Facts):
    """Where backups live. Without keys of its own, boto3's standard credential chain is used.

    `age_recipients` are age public keys: with any, every object is encrypted before it leaves.
    `age_identity_file` holds the private key and is needed for reading only.
    `signing_key_file`: minisign's secret key; with it every document is signed. `trusted_keys`: public keys, or files
    of such; with any, what none of them has signed is refused.
    `seen_file`: this machine's note of the newest that it has seen in the store.
    `retain`: Object Lock that we set; None: none. `purpose`: what the store's keys are for on this host.
    """

    bucket: str | None = None
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
        """The endpoint's address without a user or password that somebody wrote into it."""
        return without_credentials(self.endpoint_url or "")

    def describe(self) -> str:
        if self.bucket is None:
            return "no store (TMI_OPS_S3_BUCKET is not set)"
        where = f" at {self.public_endpoint}" if self.endpoint_url else ""
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


class AlertSettings(_Facts):
    """Channels in apprise's notation, by the mildest severity they hear of, and the dead-man heartbeat.

    `urls` hear everything, `urls_warning` warnings and critical alerts, `urls_critical` critical ones alone. An alert
    that stays open is sent again after `repeat`.
    """

    urls: tuple[SecretStr, ...] = ()
    urls_warning: tuple[SecretStr, ...] = ()
    urls_critical: tuple[SecretStr, ...] = ()
    repeat: timedelta = timedelta(hours=4)
    heartbeat_url: SecretStr | None = None

    def describe(self) -> str:
        """How many channels hear what, without an address."""
        counts = {"all": self.urls, "warning and worse": self.urls_warning, "critical": self.urls_critical}
        return ", ".join(f"{len(urls)} for {words}" for words, urls in counts.items() if urls) or "nobody is told"


def full_name(environment: str, database: str | None) -> str:
    """`production`, or `production/billing` for another database of its cluster."""
    return f"{environment}/{database}" if database else environment


class Settings(_Facts):
    """Everything tmi_ops is told. Secrets never show in its repr.

    `database`: its name in tmi-ops.toml, where it is another database of the environment's cluster than its own.
    `variables`: what all this was read from; None where it was made otherwise. Holds secrets.
    `redis`: None where nobody has said that TMI has a cache; one that merely listens on Redis's port is not TMI's.
    `copy_libraries`: what servers over restored files load when they start (shared_preload_libraries).
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
        """Below the environment's part of the store: where lies what is known of this database alone, beside its
        cluster's base backups, WAL and logical backups."""
        return f"databases/{self.database}/" if self.database else ""
