"""Checks of TMI's cache, which must be reconciled with the database after a recovery."""

from __future__ import annotations

from pathlib import Path

from redis.exceptions import RedisError

from tmi_ops.cache.connection import open_cache, require_cache
from tmi_ops.checks.finding import Answer, Outcome, critical, fine, not_applicable, warning
from tmi_ops.diagnosis.chain import Link
from tmi_ops.diagnosis.context import DiagnosisContext
from tmi_ops.diagnosis.finding import Area
from tmi_ops.diagnosis.network import Service, knock, look_up
from tmi_ops.settings import RedisSettings


def look_at_address(context: DiagnosisContext) -> Answer:
    redis = context.settings.redis
    if redis is None:
        return not_applicable("no REDIS_* is set, so TMI's cache is not managed")
    start = (
        ("tmi-ops up  # starts the embedded stack",)
        if context.settings.uses_embedded_stack
        else ("systemctl start redis-server  # or: docker start <its container>",)
    )
    service = Service("Redis", redis.host, redis.port, "REDIS_HOST", "REDIS_PORT", start)
    found = look_up(service)
    return found if found.outcome is Outcome.CRITICAL else knock(service)


def look_at_tls(context: DiagnosisContext) -> Answer:
    settings = require_cache(context.settings.redis)
    said = _said_to_a_ping(settings)
    trouble = _with_tls(settings, said) if settings.tls_enabled else _without_tls(settings, said)
    if trouble is not None:
        return trouble
    return fine(f"verified for {settings.host}" if settings.tls_enabled else "not used (REDIS_TLS_ENABLED=false)")


def _said_to_a_ping(settings: RedisSettings) -> str:
    """The error of the first command; the next link judges a wrong password."""
    client = open_cache(settings, retries=0)
    try:
        client.ping()
    except RedisError as error:
        return str(error)
    finally:
        client.close()
    return ""


def _with_tls(settings: RedisSettings, said: str) -> Answer | None:
    file, where = settings.tls_ca_file, f"{settings.host}:{settings.port}"
    if file and not Path(file).is_file():
        return critical(
            f"the file {file} does not exist",
            "REDIS_TLS_CA_FILE must name the certificate of the authority that signed the cache's certificate",
            f"ls {file}",
        )
    if "NO_CERTIFICATE_OR_CRL_FOUND" in said or "PEM" in said:
        return critical(
            f"{file} holds no certificate", "REDIS_TLS_CA_FILE is not a PEM file", f"openssl x509 -in {file} -text"
        )
    if "certificate is not valid for" in said:
        return critical(
            f"the certificate of {where} is for another name",
            f"it does not contain the name {settings.host}",
            "set REDIS_HOST to a name in the certificate:",
            f"openssl s_client -connect {where} </dev/null | openssl x509 -noout -ext subjectAltName",
        )
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return critical(
            f"the certificate of {where} is not trusted: {said.partition('failed: ')[2].partition(' (')[0]}",
            f"its authority is not {'in ' + file if file else 'one this system trusts'}",
            "set REDIS_TLS_CA_FILE to the certificate of its authority (ca.crt)",
        )
    if said and ("SSL" in said or "Timeout" in said or "closed" in said or "reset" in said):
        return critical(
            f"{where} does not answer a TLS handshake",
            "TLS is off on this port, but REDIS_TLS_ENABLED or rediss:// requires it",
            "set REDIS_TLS_ENABLED=false, or REDIS_PORT to the server's tls-port",
        )
    return None


def _without_tls(settings: RedisSettings, said: str) -> Answer | None:
    if "reset by peer" in said or "closed by server" in said.lower():
        return critical(
            f"{settings.host}:{settings.port} closes the connection at the first command",
            "it requires TLS, but REDIS_TLS_ENABLED is off",
            "set REDIS_TLS_ENABLED=true and REDIS_TLS_CA_FILE to the certificate of its authority (ca.crt)",
        )
    return None


def look_at_authentication(context: DiagnosisContext) -> Answer:
    settings = require_cache(context.settings.redis)
    client = open_cache(settings, retries=0)
    try:
        keys = client.dbsize()
    except RedisError as error:
        return _refused(settings, str(error))
    finally:
        client.close()
    return fine(f"{settings.describe()} answers, {keys} keys")


def _refused(settings: RedisSettings, said: str) -> Answer:
    low = said.lower()
    if "wrongpass" in low or "invalid username-password" in low or "invalid password" in low:
        return critical(
            f"{settings.describe()} refuses the password",
            "REDIS_PASSWORD is not the server's requirepass",
            "set REDIS_PASSWORD to the value of `requirepass` in its redis.conf",
        )
    if "noauth" in low or "hello must be called" in low or "authentication required" in low:
        return critical(
            f"{settings.describe()} requires a password",
            "REDIS_PASSWORD is not set",
            "set REDIS_PASSWORD to its password",
        )
    if "without any password configured" in low or "no password is set" in low:
        return warning(
            f"{settings.describe()} has no password, but REDIS_PASSWORD is set",
            "anybody who can reach the cache can read sessions from it",
            "redis-cli CONFIG SET requirepass '<the password>'  # and set it in its redis.conf",
            "unset REDIS_PASSWORD, if the server is meant to have none",
        )
    if "db index is out of range" in low or "invalid db index" in low:
        return critical(
            f"{settings.host}:{settings.port} has no database {settings.db}",
            "REDIS_DB exceeds what `databases` in its redis.conf allows (usually 0 to 15)",
            "set REDIS_DB=0",
        )
    return critical(
        f"{settings.describe()}: {said}", "what answers is not Redis, or Redis has a problem", "redis-cli INFO server"
    )


CACHE_LINKS = (
    Link("redis-address", "Redis", Area.CACHE, look_at_address, ("settings",)),
    Link("redis-tls", "Redis TLS", Area.CACHE, look_at_tls, ("redis-address",)),
    Link("redis-authentication", "Redis password", Area.CACHE, look_at_authentication, ("redis-tls",)),
)
