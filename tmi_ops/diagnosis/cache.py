"""TMI's cache: after a recovery it must be cleansed of what the database no longer knows."""

from __future__ import annotations

from pathlib import Path

from redis.exceptions import RedisError

from tmi_ops.cache.connection import open_cache, require_cache
from tmi_ops.checks.finding import Answer, Outcome, critical, fine, not_applicable, warning
from tmi_ops.diagnosis.chain import Link
from tmi_ops.diagnosis.finding import Area
from tmi_ops.diagnosis.network import Service, knock, look_up
from tmi_ops.diagnosis.patient import Patient
from tmi_ops.settings import RedisSettings


def look_at_address(patient: Patient) -> Answer:
    redis = patient.settings.redis
    if redis is None:
        return not_applicable("no REDIS_* is set: TMI's cache is not looked after")
    start = (
        ("tmi-ops up  # starts the embedded stack",)
        if patient.settings.uses_embedded_stack
        else ("systemctl start redis-server  # or: docker start <its container>",)
    )
    service = Service("Redis", redis.host, redis.port, "REDIS_HOST", "REDIS_PORT", start)
    found = look_up(service)
    return found if found.outcome is Outcome.CRITICAL else knock(service)


def look_at_tls(patient: Patient) -> Answer:
    settings = require_cache(patient.settings.redis)
    said = _said_to_a_ping(settings)
    trouble = _with_tls(settings, said) if settings.tls_enabled else _without_tls(settings, said)
    if trouble is not None:
        return trouble
    return fine(f"verified for {settings.host}" if settings.tls_enabled else "not used (REDIS_TLS_ENABLED=false)")


def _said_to_a_ping(settings: RedisSettings) -> str:
    """What goes wrong with the first command; of a wrong password the next link tells."""
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
            f"there is no file {file}",
            "REDIS_TLS_CA_FILE is to name the authority that vouches for the cache",
            f"ls {file}",
        )
    if "NO_CERTIFICATE_OR_CRL_FOUND" in said or "PEM" in said:
        return critical(
            f"{file} holds no certificate", "REDIS_TLS_CA_FILE is no PEM file", f"openssl x509 -in {file} -text"
        )
    if "certificate is not valid for" in said:
        return critical(
            f"the certificate of {where} is for another name",
            f"it does not name {settings.host}",
            "set REDIS_HOST to a name in it:",
            f"openssl s_client -connect {where} </dev/null | openssl x509 -noout -ext subjectAltName",
        )
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return critical(
            f"the certificate of {where} cannot be trusted: {said.partition('failed: ')[2].partition(' (')[0]}",
            f"its authority is not {'in ' + file if file else 'one the system knows'}",
            "set REDIS_TLS_CA_FILE to the file of its authority (ca.crt)",
        )
    if said and ("SSL" in said or "Timeout" in said or "closed" in said or "reset" in said):
        return critical(
            f"{where} does not answer to TLS",
            "it speaks none, and REDIS_TLS_ENABLED or rediss:// asks for it",
            "set REDIS_TLS_ENABLED=false, or REDIS_PORT to its tls-port",
        )
    return None


def _without_tls(settings: RedisSettings, said: str) -> Answer | None:
    if "reset by peer" in said or "closed by server" in said.lower():
        return critical(
            f"{settings.host}:{settings.port} hangs up at the first word",
            "it wants TLS, which is not asked for",
            "set REDIS_TLS_ENABLED=true and REDIS_TLS_CA_FILE to the file of its authority (ca.crt)",
        )
    return None


def look_at_authentication(patient: Patient) -> Answer:
    settings = require_cache(patient.settings.redis)
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
            "set REDIS_PASSWORD to what `requirepass` in its redis.conf says",
        )
    if "noauth" in low or "hello must be called" in low or "authentication required" in low:
        return critical(
            f"{settings.describe()} wants a password", "REDIS_PASSWORD is not set", "set REDIS_PASSWORD to its password"
        )
    if "without any password configured" in low or "no password is set" in low:
        return warning(
            f"{settings.describe()} has no password, and one is set here",
            "anybody who reaches the cache can read sessions from it",
            "redis-cli CONFIG SET requirepass '<the password>'  # and in its redis.conf",
            "unset REDIS_PASSWORD, if that is as it should be",
        )
    if "db index is out of range" in low or "invalid db index" in low:
        return critical(
            f"{settings.host}:{settings.port} has no database {settings.db}",
            "REDIS_DB is beyond what `databases` in its redis.conf allows (usually 0 to 15)",
            "set REDIS_DB=0",
        )
    return critical(
        f"{settings.describe()}: {said}", "what answers is no Redis, or it is unwell", "redis-cli INFO server"
    )


CACHE_LINKS = (
    Link("redis-address", "Redis", Area.CACHE, look_at_address, ("settings",)),
    Link("redis-tls", "Redis TLS", Area.CACHE, look_at_tls, ("redis-address",)),
    Link("redis-authentication", "Redis password", Area.CACHE, look_at_authentication, ("redis-tls",)),
)
