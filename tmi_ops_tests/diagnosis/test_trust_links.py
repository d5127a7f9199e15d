"""Who could read, change or forge what we do, as the doctor sees it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import SecretStr

from tmi_ops.checks.finding import Outcome
from tmi_ops.diagnosis.context import DiagnosisContext
from tmi_ops.diagnosis.store import look_at_deleting
from tmi_ops.diagnosis.trust import look_at_keys, look_at_lock, way_to_postgres, way_to_store
from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.connections import connect, connection_parameters, libpq_environment
from tmi_ops.settings import OBJECTIVES, PostgresSettings, RedisSettings, Retain, Settings, StoreSettings
from tmi_ops.store.objects import open_store
from tmi_ops.store.restore_guide import restore_guide
from tmi_ops.store.s3.client import connect_store, store_session
from tmi_ops.store.s3.visit import StoreVisit
from tmi_ops_tests.raw_s3 import s3_of
from tmi_ops_tests.store.conftest import make_age_keys
from tmi_ops_tests.store.own_keys import ENVIRONMENT, server_with_policies

PASSWORD = SecretStr("never in the clear")


def production(**changes: Any) -> Settings:
    facts: dict[str, Any] = {
        "environment": "production",
        "postgres": PostgresSettings(host="db.example.org", sslmode="require", password=PASSWORD),
        "redis": RedisSettings(),
        "store": StoreSettings(bucket="b"),
        "objectives": OBJECTIVES["production"],
        "home": Path("home"),
    }
    return Settings(**(facts | changes))


@pytest.mark.parametrize(
    ("endpoint", "outcome"),
    [
        (None, Outcome.OK),
        ("https://s3.example.org", Outcome.OK),
        ("https://s3.example.org/", Outcome.OK),
        ("http://127.0.0.1:8333", Outcome.OK),
        ("http://s3.example.org", Outcome.WARNING),
        ("https://user:hunter2@s3.example.org", Outcome.WARNING),
    ],
)
def test_the_way_to_the_store_is_judged_and_its_secrets_are_not_shown(endpoint: str | None, outcome: Outcome) -> None:
    settings = production(store=StoreSettings(bucket="b", endpoint_url=endpoint))
    finding = way_to_store(settings)
    assert finding.outcome is outcome
    assert "hunter2@" not in repr(finding)
    assert "hunter2@" not in settings.store.describe()


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, Outcome.WARNING),
        ({"sslmode": "verify-ca"}, Outcome.WARNING),
        ({"sslmode": "verify-full"}, Outcome.OK),
        ({"require_auth": "scram-sha-256"}, Outcome.WARNING),
        ({"require_auth": "scram-sha-256", "channel_binding": "require"}, Outcome.OK),
        ({"host": "/run/postgresql"}, Outcome.OK),
        ({"host": "localhost"}, Outcome.OK),
    ],
)
def test_who_could_answer_in_postgresqls_place_is_named(changes: dict[str, Any], outcome: Outcome) -> None:
    base = {"host": "db.example.org", "sslmode": "require"}
    assert way_to_postgres(production(postgres=PostgresSettings(**(base | changes)))).outcome is outcome


def test_credentials_in_an_address_reach_neither_a_message_nor_the_guide(store_settings: StoreSettings) -> None:
    assert store_settings.endpoint_url is not None
    evil = store_settings.endpoint_url.replace("http://", "http://user:hunter2@")
    client = connect_store(store_session(), store_settings.model_copy(update={"endpoint_url": evil}))
    store = open_store(store_settings, "development")
    assert "hunter2" not in restore_guide(replace(store, backend=replace(s3_of(store), client=client)))


@contextmanager
def server_that_asks_for_the_password() -> Iterator[tuple[int, list[bytes]]]:
    """Somebody who answers in PostgreSQL's place, without TLS, and asks for the password in the clear."""
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                client.settimeout(3)
                try:
                    while first := client.recv(4096):
                        if first[4:8] in (b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30"):
                            client.sendall(b"N")
                            continue
                        client.sendall(b"R\x00\x00\x00\x08\x00\x00\x00\x03")
                        heard.append(client.recv(4096))
                        break
                except OSError:
                    continue

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1], heard
    finally:
        listener.close()


def test_the_attack_of_a_server_that_asks_for_the_password_hears_none() -> None:
    with server_that_asks_for_the_password() as (port, heard):
        address = PostgresSettings(host="127.0.0.1", port=port, password=PASSWORD, sslmode="prefer")
        with pytest.raises(DatabaseError), connect(address):
            pass
        assert not any(PASSWORD.get_secret_value().encode() in one for one in heard)
        told = address.model_copy(update={"require_auth": "password"})
        with pytest.raises(DatabaseError), connect(told):
            pass
        assert any(PASSWORD.get_secret_value().encode() in one for one in heard), "the attack works where it is let"


def test_programs_are_told_the_same() -> None:
    address = PostgresSettings(host="db.example.org", sslmode="require", channel_binding="require")
    environment = libpq_environment(address)
    assert (environment["PGREQUIREAUTH"], environment["PGCHANNELBINDING"]) == ("!password", "require")
    assert connection_parameters(address)["require_auth"] == "!password"
    verified = address.model_copy(update={"sslmode": "verify-full"})
    assert "PGREQUIREAUTH" not in libpq_environment(verified)


def context_of(settings: Settings) -> DiagnosisContext:
    visit = StoreVisit(settings.store, settings.environment)
    return cast(DiagnosisContext, SimpleNamespace(settings=settings, store_visit=visit))


def test_a_private_key_of_other_recipients_is_named(tmp_path: Path) -> None:
    keys, others = make_age_keys(tmp_path / "one"), make_age_keys(tmp_path / "other")
    store = StoreSettings(bucket="b", age_recipients=(keys.recipient,), age_identity_file=others.identity_file)
    finding = look_at_keys(context_of(production(store=store)))
    assert finding.outcome is Outcome.WARNING
    assert "belongs to none of the recipients" in finding.seen
    plain = look_at_keys(context_of(production()))
    assert (plain.outcome, "not encrypted" in plain.seen) == (Outcome.WARNING, True)


@pytest.mark.slow
def test_each_key_is_judged_by_its_purpose_and_the_lock_is_tried(tmp_path: Path) -> None:
    with server_with_policies(tmp_path) as keys:

        def context(store: StoreSettings, **changes: Any) -> DiagnosisContext:
            return context_of(production(environment=ENVIRONMENT, store=store.model_copy(update=changes)))

        for store, purpose, outcome in (
            (keys.writer, "write", Outcome.OK),
            (keys.prover, "prove", Outcome.OK),
            (keys.pruner, "prune", Outcome.OK),
            (keys.writer, "prune", Outcome.CRITICAL),
            (keys.writer, "everything", Outcome.WARNING),
            (keys.admin, "write", Outcome.WARNING),
            (keys.admin, "everything", Outcome.OK),
        ):
            assert look_at_deleting(context(store, purpose=purpose)).outcome is outcome, (purpose, outcome)
        for mode in ("GOVERNANCE", "COMPLIANCE"):
            retain = Retain(period=timedelta(days=30), mode=mode)
            assert look_at_lock(context(keys.writer, retain=retain)).outcome is Outcome.OK
        governed = Retain(period=timedelta(days=30))
        finding = look_at_lock(context(keys.admin, retain=governed))
        assert (finding.outcome, "our own keys could delete" in finding.seen) == (Outcome.CRITICAL, True)
