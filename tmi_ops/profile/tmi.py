"""TMI's profile: what its schema and roles, which are declared elsewhere in this program, do not tell."""

from __future__ import annotations

from datetime import timedelta

from tmi_ops.profile.cache_keys import KeyPattern, KeyPurpose
from tmi_ops.profile.facts import Profile, Root, Tie

# Tables whose rows `metadata` references by kind and ID.
_WITH_METADATA = (
    "assets",
    "diagrams",
    "documents",
    "notes",
    "projects",
    "repositories",
    "survey_responses",
    "survey_templates",
    "teams",
    "threat_models",
    "threats",
)
TIES = (
    Tie(child="alias_counters", column="parent_id", parent="threat_models"),
    Tie(child="audit_entries", column="threat_model_id", parent="threat_models"),
    Tie(child="version_snapshots", column="audit_entry_id", parent="audit_entries"),
    *(Tie(child="metadata", column="entity_id", parent=parent) for parent in _WITH_METADATA),
)


def _minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_A_WINDOW_OF_AN_HOUR = _HOUR + _minutes(1)

# The patterns and TTLs are the server's own (its Redis key builder, key validator, cache service, rate limiters,
# sign-in and revocation). A sliding window of a rate limit has a TTL of its length plus a minute.
CACHE: tuple[KeyPattern, ...] = (
    KeyPattern("cache:user:*", KeyPurpose.COPY, _minutes(15), "users, by id, address and provider"),
    KeyPattern("cache:threat_model:*", KeyPurpose.COPY, _minutes(10), "threat models"),
    KeyPattern("cache:diagram:*", KeyPurpose.COPY, _minutes(10), "diagrams"),
    KeyPattern("cache:cells:*", KeyPurpose.COPY, _minutes(10), "what is drawn in a diagram"),
    KeyPattern("cache:threat:*", KeyPurpose.COPY, _minutes(5), "threats"),
    KeyPattern("cache:document:*", KeyPurpose.COPY, _minutes(5), "documents"),
    KeyPattern("cache:note:*", KeyPurpose.COPY, _minutes(5), "notes"),
    KeyPattern("cache:repository:*", KeyPurpose.COPY, _minutes(5), "repositories"),
    KeyPattern("cache:asset:*", KeyPurpose.COPY, _minutes(5), "assets"),
    KeyPattern("cache:metadata:*", KeyPurpose.COPY, _minutes(7), "metadata"),
    KeyPattern("cache:auth:*", KeyPurpose.COPY, _minutes(15), "who may see a threat model"),
    KeyPattern("cache:list:*", KeyPurpose.COPY, _minutes(5), "pages of lists"),
    KeyPattern("cache:*", KeyPurpose.COPY, _minutes(15), "other copies of rows"),
    KeyPattern("tmi:settings:*", KeyPurpose.COPY, _minutes(1), "system settings"),
    KeyPattern("session:*", KeyPurpose.SESSION, _DAY, "sessions"),
    KeyPattern("auth:token:*", KeyPurpose.SESSION, _DAY, "tokens"),
    KeyPattern("auth:refresh:*", KeyPurpose.SESSION, 30 * _DAY, "refresh tokens"),
    KeyPattern("refresh_token:*", KeyPurpose.SESSION, 30 * _DAY, "refresh tokens"),
    KeyPattern("user_groups:*", KeyPurpose.SESSION, _DAY, "the groups a user signed in with"),
    KeyPattern("blacklist:token:*", KeyPurpose.REVOCATION, _DAY, "revoked tokens"),
    KeyPattern("blacklist:credential:*", KeyPurpose.REVOCATION, _DAY, "revoked client credentials"),
    KeyPattern("blacklist:*", KeyPurpose.REVOCATION, _DAY, "other revocations"),
    KeyPattern("rate_limit:global:*", KeyPurpose.LIMIT, _minutes(1), "requests by address"),
    KeyPattern("rate_limit:user:*", KeyPurpose.LIMIT, _minutes(1), "requests by user"),
    KeyPattern("rate_limit:api:*", KeyPurpose.LIMIT, _HOUR, "requests by API key"),
    KeyPattern("auth:ratelimit:*", KeyPurpose.LIMIT, _A_WINDOW_OF_AN_HOUR, "attempts to sign in"),
    KeyPattern("ip:ratelimit:*", KeyPurpose.LIMIT, _A_WINDOW_OF_AN_HOUR, "requests by address"),
    KeyPattern("api:ratelimit:*", KeyPurpose.LIMIT, _A_WINDOW_OF_AN_HOUR, "requests by user"),
    KeyPattern("addon:ratelimit:*", KeyPurpose.LIMIT, _A_WINDOW_OF_AN_HOUR, "calls of add-ons"),
    KeyPattern("webhook:ratelimit:*", KeyPurpose.LIMIT, _DAY + _minutes(1), "webhook subscriptions and events"),
    KeyPattern("oauth_token_failures:*", KeyPurpose.LIMIT, _HOUR, "failed grants, which lock a client out"),
    KeyPattern("auth:state:*", KeyPurpose.SIGN_IN, _minutes(10), "OAuth states"),
    KeyPattern("oauth_state:*", KeyPurpose.SIGN_IN, _minutes(10), "OAuth states"),
    KeyPattern("pkce:*", KeyPurpose.SIGN_IN, _minutes(10), "PKCE challenges"),
    KeyPattern("lock:*", KeyPurpose.WORK, timedelta(seconds=30), "locks"),
    KeyPattern("addon:dedup:*", KeyPurpose.WORK, timedelta(seconds=5), "calls of add-ons, not to be made twice"),
    KeyPattern("addon:invocation:*", KeyPurpose.WORK, 7 * _DAY, "calls of add-ons"),
    KeyPattern("addon:active:*", KeyPurpose.WORK, 7 * _DAY, "users with a call under way"),
    KeyPattern("temp:export:*", KeyPurpose.JOB, _HOUR, "exports"),
    KeyPattern("temp:import:*", KeyPurpose.JOB, _HOUR, "imports"),
    KeyPattern("user_deletion_challenge:*", KeyPurpose.JOB, _minutes(3), "consents to delete an account"),
)

TMI = Profile(
    name="tmi",
    has_models=True,
    has_roles=True,
    roots={"threat-model": Root(table="threat_models")},
    ties=TIES,
    cache=CACHE,
)
