"""Who could read, change or forge what we do: the ways to the servers, the keys, and the lock on the bucket."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from urllib.parse import urlsplit

from tmi_ops.checks.finding import Answer, critical, fine, unknown, warning
from tmi_ops.diagnosis.chain import Link
from tmi_ops.diagnosis.finding import Area
from tmi_ops.diagnosis.patient import Patient
from tmi_ops.settings import Settings
from tmi_ops.store.keys import key_facts

# So long stays what we try to remove: the shortest lock that outlasts the attempt.
_TRIED_FOR = timedelta(minutes=1)


def look_at_keys(patient: Patient) -> Answer:
    """Whether the private key belongs to the recipients, and our signatures are believed."""
    settings = patient.settings
    facts = key_facts(settings.store, settings.environment)
    if facts.problems:
        first, *others = facts.problems
        return warning(first, " ".join(others) or "the keys do not fit together", "tmi-ops keys show")
    encrypted = f"encrypted for {len(facts.recipients)}" if facts.recipients else "not encrypted"
    signed = "signed" if facts.signing else "unsigned"
    seen = f"what is written is {encrypted}, {signed}; {'checked' if facts.trusted else 'signatures are not checked'}"
    if settings.environment == "production" and not (facts.recipients and facts.trusted):
        return warning(
            seen,
            "whoever can read the bucket reads the database, or whoever can write it can forge a backup and its proof",
            "tmi-ops keys init  # then set what it prints; docs/security.md",
        )
    return fine(seen)


def look_at_way_to_store(patient: Patient) -> Answer:
    """Whether the way to the bucket is encrypted, and its address holds no secret."""
    return way_to_store(patient.settings)


def way_to_store(settings: Settings) -> Answer:
    endpoint = settings.store.endpoint_url
    if endpoint is None:
        return fine("https, to AWS")
    if endpoint.rstrip("/") != settings.store.public_endpoint.rstrip("/"):
        return warning(
            f"the address of {settings.store.public_endpoint} holds more than an address (not shown)",
            "addresses get into logs, metrics and process lists; a user or password there is soon known",
            "take it out of TMI_OPS_S3_ENDPOINT_URL; keys go into TMI_OPS_S3_ACCESS_KEY_ID and _SECRET_ACCESS_KEY",
        )
    url = urlsplit(endpoint)
    if url.scheme == "http" and not _is_this_machine(url.hostname or "") and settings.environment == "production":
        return warning(
            f"{settings.store.public_endpoint} is plain http",
            "whoever sits on the wire reads what is not encrypted, and can answer in the server's place",
            "give the S3 server a certificate, and set TMI_OPS_S3_ENDPOINT_URL to https://...",
        )
    return fine(url.scheme)


def look_at_way_to_postgres(patient: Patient) -> Answer:
    """Whether another server could answer in PostgreSQL's place."""
    return way_to_postgres(patient.settings)


def way_to_postgres(settings: Settings) -> Answer:
    postgres = settings.postgres
    if postgres.host.startswith("/") or _is_this_machine(postgres.host):
        return fine("on this machine")
    if postgres.sslmode == "verify-full":
        return fine("certificate and name are verified")
    bound = postgres.channel_binding == "require" and postgres.require_auth == "scram-sha-256"
    if bound:
        return fine(f"sslmode={postgres.sslmode}; the server must prove that it knows the password (channel binding)")
    seen = f"sslmode={postgres.sslmode} does not verify who answers"
    if settings.environment != "production":
        return fine(seen)
    return warning(
        seen,
        "a server that answers in its place gets our statements and data, and something to guess the password from",
        "set POSTGRES_SSLMODE=verify-full with POSTGRES_SSLROOTCERT",
        "or at least POSTGRES_REQUIRE_AUTH=scram-sha-256 and POSTGRES_CHANNEL_BINDING=require",
    )


def look_at_lock(patient: Patient) -> Answer:
    """Whether the bucket refuses to let go of what is locked: tried with an object of our own."""
    settings, visit = patient.settings.store, patient.store_visit
    found = visit.ask(lambda: visit.client.get_object_lock_configuration(Bucket=visit.bucket))
    locks = not found.code and found.content.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled"
    if settings.retain is None:
        seen = "the bucket has Object Lock, but TMI_OPS_RETAIN is not set" if locks else "nothing is locked"
        if patient.settings.environment != "production":
            return fine(seen)
        return warning(
            seen,
            "who gets hold of a key that may delete, or of the account, can empty the bucket",
            "set TMI_OPS_RETAIN=30d (docs/retention.md)"
            if locks
            else "make a bucket with Object Lock, and set TMI_OPS_RETAIN=30d (docs/retention.md)",
        )
    if not locks:
        return critical(
            f"TMI_OPS_RETAIN asks for {settings.retain.describe()}, and the bucket has no Object Lock",
            found.said or "it was made without, so that every put is refused",
            "make a bucket with Object Lock, or unset TMI_OPS_RETAIN",
        )
    key = f"{visit.key}.locked"
    until = datetime.now(UTC) + _TRIED_FOR
    put = visit.ask(
        lambda: visit.client.put_object(
            Bucket=visit.bucket,
            Key=key,
            Body=b"tmi-ops doctor tries to remove this locked object.\n",
            ObjectLockMode=settings.retain.mode if settings.retain else "GOVERNANCE",
            ObjectLockRetainUntilDate=until,
        )
    )
    if put.code:
        return unknown(f"no locked object could be stored: {put.code}: {put.said}", "allow s3:PutObjectRetention")
    removed = visit.ask(
        lambda: visit.client.delete_object(
            Bucket=visit.bucket, Key=key, VersionId=put.content.get("VersionId", ""), BypassGovernanceRetention=True
        )
    )
    if not removed.code:
        return critical(
            "an object under Object Lock was removed with our own keys",
            "they may bypass governance mode (s3:BypassGovernanceRetention), or the server ignores the lock",
            "give these keys the policy of their purpose (docs/iam), or use compliance mode",
        )
    return fine(f"{settings.retain.describe()}: a locked object could not be removed")


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


TRUST_LINKS = (
    Link("keys", "keys that encrypt and sign", Area.STORE, look_at_keys, ("settings",)),
    Link("store-transport", "way to the store", Area.STORE, look_at_way_to_store, ("store-settings",)),
    Link("postgres-transport", "who answers as PostgreSQL", Area.CONNECTION, look_at_way_to_postgres, ("settings",)),
    Link("store-lock", "Object Lock", Area.STORE, look_at_lock, ("store-put",)),
)
