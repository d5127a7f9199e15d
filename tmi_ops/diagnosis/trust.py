"""Checks against reading, changing or forging backups: transport to the servers, keys, and Object Lock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from urllib.parse import urlsplit

from tmi_ops.checks.finding import Answer, critical, fine, not_applicable, unknown, warning
from tmi_ops.diagnosis.chain import Link
from tmi_ops.diagnosis.context import DiagnosisContext
from tmi_ops.diagnosis.finding import Area
from tmi_ops.settings import Settings
from tmi_ops.store.keys import key_facts

# How long the locked object remains: the shortest lock that outlasts the attempt to delete it.
_TRIED_FOR = timedelta(minutes=1)


def look_at_keys(context: DiagnosisContext) -> Answer:
    """Whether the private key matches the recipients, and our signing key is trusted."""
    settings = context.settings
    facts = key_facts(settings.store, settings.environment)
    if facts.problems:
        first, *others = facts.problems
        return warning(first, " ".join(others) or "the keys do not match", "tmi-ops keys show")
    encrypted = f"encrypted for {len(facts.recipients)}" if facts.recipients else "not encrypted"
    signed = "signed" if facts.signing else "not signed"
    seen = f"new objects are {encrypted} and {signed}; signatures are {'' if facts.trusted else 'not '}checked"
    if settings.environment == "production" and not (facts.recipients and facts.trusted):
        return warning(
            seen,
            "anybody who can read the bucket can read the database, or anybody who can write to it can forge a backup "
            "and its verification",
            "tmi-ops keys init  # then set what it prints; see docs/security.md",
        )
    return fine(seen)


def look_at_way_to_store(context: DiagnosisContext) -> Answer:
    """Whether the connection to the store is encrypted, and its address holds no secret."""
    return way_to_store(context.settings)


def way_to_store(settings: Settings) -> Answer:
    endpoint = settings.store.endpoint_url
    if settings.store.directory is not None:
        return not_applicable("the store is a directory: nothing is sent over a network")
    if endpoint is None:
        return fine("https, to AWS")
    if endpoint.rstrip("/") != settings.store.public_endpoint.rstrip("/"):
        return warning(
            f"TMI_OPS_S3_ENDPOINT_URL ({settings.store.public_endpoint}) contains more than an address (not shown)",
            "addresses appear in logs, metrics and process lists, and so would a user or password in them",
            "remove it from TMI_OPS_S3_ENDPOINT_URL; set TMI_OPS_S3_ACCESS_KEY_ID and _SECRET_ACCESS_KEY instead",
        )
    url = urlsplit(endpoint)
    if url.scheme == "http" and not _is_this_machine(url.hostname or "") and settings.environment == "production":
        return warning(
            f"{settings.store.public_endpoint} is plain http",
            "anybody on the network can read what is not encrypted, and can impersonate the server",
            "install a certificate on the S3 server, and set TMI_OPS_S3_ENDPOINT_URL to https://...",
        )
    return fine(url.scheme)


def look_at_way_to_postgres(context: DiagnosisContext) -> Answer:
    """Whether another server could impersonate PostgreSQL."""
    return way_to_postgres(context.settings)


def way_to_postgres(settings: Settings) -> Answer:
    postgres = settings.postgres
    if postgres.host.startswith("/") or _is_this_machine(postgres.host):
        return fine("on this machine")
    if postgres.sslmode == "verify-full":
        return fine("certificate and name are verified")
    bound = postgres.channel_binding == "require" and postgres.require_auth == "scram-sha-256"
    if bound:
        return fine(f"sslmode={postgres.sslmode}; the server must show that it knows the password (channel binding)")
    seen = f"sslmode={postgres.sslmode} does not verify the server's identity"
    if settings.environment != "production":
        return fine(seen)
    return warning(
        seen,
        "a server that impersonates it gets our statements and data, and material to guess the password from",
        "set POSTGRES_SSLMODE=verify-full with POSTGRES_SSLROOTCERT",
        "or at least POSTGRES_REQUIRE_AUTH=scram-sha-256 and POSTGRES_CHANNEL_BINDING=require",
    )


def look_at_lock(context: DiagnosisContext) -> Answer:
    """Whether the bucket protects locked objects, tested with an object of our own."""
    settings, visit = context.settings.store, context.store_visit
    found = visit.lock_configuration()
    locks = not found.code and found.content
    if settings.retain is None:
        seen = "the bucket has Object Lock, but TMI_OPS_RETAIN is not set" if locks else "nothing is locked"
        if context.settings.environment != "production":
            return fine(seen)
        return warning(
            seen,
            "anybody who obtains a key that may delete, or the account, can empty the bucket",
            "set TMI_OPS_RETAIN=30d (see docs/retention.md)"
            if locks
            else "create a bucket with Object Lock, and set TMI_OPS_RETAIN=30d (see docs/retention.md)",
        )
    if not locks:
        return critical(
            f"TMI_OPS_RETAIN requires {settings.retain.describe()}, but the bucket has no Object Lock",
            found.said or "the bucket was created without it, so every put is refused",
            "create a bucket with Object Lock, or unset TMI_OPS_RETAIN",
        )
    put = visit.put_locked(settings.retain, datetime.now(UTC) + _TRIED_FOR)
    if put.code:
        return unknown(f"a locked object could not be stored: {put.code}: {put.said}", "allow s3:PutObjectRetention")
    removed = visit.delete_locked(put.content)
    if not removed.code:
        return critical(
            "our own keys could delete an object under Object Lock",
            "they may bypass governance mode (s3:BypassGovernanceRetention), or the server ignores the lock",
            "give these keys the policy of their purpose (docs/iam), or use compliance mode",
        )
    return fine(f"{settings.retain.describe()}: a locked object could not be deleted")


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


TRUST_LINKS = (
    Link("keys", "encryption and signing keys", Area.STORE, look_at_keys, ("settings",)),
    Link("store-transport", "transport to the store", Area.STORE, look_at_way_to_store, ("store-settings",)),
    Link("postgres-transport", "identity of PostgreSQL", Area.CONNECTION, look_at_way_to_postgres, ("settings",)),
    Link("store-lock", "Object Lock", Area.STORE, look_at_lock, ("store-put",)),
)
