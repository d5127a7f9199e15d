"""A process that opens a store again uses the clients that it has, and asks the bucket only if it has reason to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from tmi_ops.errors import StoreError
from tmi_ops.settings import StoreSettings
from tmi_ops.store.objects import open_store
from tmi_ops.store.s3 import kept
from tmi_ops.store.s3.kept import TRUSTED_FOR_S, Clients, kept_clients
from tmi_ops_tests.raw_s3 import s3_of
from tmi_ops_tests.store.conftest import ENVIRONMENT
from tmi_ops_tests.tcp_relay import tcp_relay

ELSEWHERE = StoreSettings(
    bucket="backups", endpoint_url="http://127.0.0.1:1", access_key_id=SecretStr("a"), secret_access_key=SecretStr("b")
)


@pytest.fixture(autouse=True)
def _kept_by_nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(kept, "_KEPT", type(kept._KEPT)())
    yield


def test_the_same_settings_have_the_same_clients_and_others_their_own() -> None:
    assert kept_clients(ELSEWHERE, hurried=True) is kept_clients(ELSEWHERE, hurried=True)
    assert kept_clients(ELSEWHERE, hurried=False) is not kept_clients(ELSEWHERE, hurried=True)
    other = ELSEWHERE.model_copy(update={"secret_access_key": SecretStr("c")})
    assert kept_clients(other, hurried=True) is not kept_clients(ELSEWHERE, hurried=True)


def test_who_hurries_has_no_patient_client() -> None:
    hurried, patient = (kept_clients(ELSEWHERE, hurried=hurried) for hurried in (True, False))
    assert hurried.patient is hurried.impatient
    assert patient.patient is not patient.impatient


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_PROFILE"])
def test_other_credentials_in_the_environment_have_clients_of_their_own(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    config.write_text("[profile another]\nregion = us-east-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    before = kept_clients(ELSEWHERE, hurried=True)
    monkeypatch.setenv(variable, "another")
    assert kept_clients(ELSEWHERE, hurried=True) is not before


def test_a_file_of_credentials_that_was_written_again_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = one\naws_secret_access_key = 1\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    before = kept_clients(ELSEWHERE, hurried=True)
    assert kept_clients(ELSEWHERE, hurried=True) is before
    file.write_text("[default]\naws_access_key_id = two\naws_secret_access_key = 2\n")
    os.utime(file, ns=(1, 1))
    assert kept_clients(ELSEWHERE, hurried=True) is not before


def test_no_more_are_kept_than_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_MOST", 2)
    first, second, _ = (kept_clients(_bucket(name), hurried=True) for name in ("one", "two", "three"))
    assert kept_clients(_bucket("two"), hurried=True) is second
    assert kept_clients(_bucket("one"), hurried=True) is not first


def test_a_bucket_is_asked_at_first_and_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(kept.time, "monotonic", lambda: now)
    clients = Clients(impatient=object(), patient=object())  # type: ignore[arg-type]
    assert clients.must_ask("shop/")
    clients.answered("shop/")
    assert not clients.must_ask("shop/")
    assert clients.must_ask("billing/"), "these keys may not read there"
    now += TRUSTED_FOR_S
    assert not clients.must_ask("shop/")
    now += 1
    assert clients.must_ask("shop/")


def test_environments_of_one_bucket_share_their_clients() -> None:
    files = (Path("one/seen.json"), Path("two/seen.json"))
    first, second = (kept_clients(ELSEWHERE.model_copy(update={"seen_file": file}), hurried=True) for file in files)
    assert first is second


def test_after_a_failure_the_clients_are_made_anew_with_the_credentials_of_then() -> None:
    clients = kept_clients(ELSEWHERE, hurried=True)
    clients.fail()
    assert kept_clients(ELSEWHERE, hurried=True) is not clients
    assert not kept_clients(ELSEWHERE, hurried=True).failed


@pytest.mark.parametrize(
    ("status", "code", "failed"),
    [
        (200, None, False),
        (404, "NoSuchKey", False),
        (412, "PreconditionFailed", False),
        (404, "NoSuchBucket", True),
        (403, "AccessDenied", True),
        (401, "Unauthorized", True),
        (400, "ExpiredToken", True),
        (301, "PermanentRedirect", True),
        (499, "Odd", False),
        (500, "InternalError", True),
        (503, "SlowDown", True),
    ],
)
def test_what_refuses_the_store_itself_is_a_failure(status: int, code: str | None, failed: bool) -> None:
    clients = Clients(impatient=object(), patient=object())  # type: ignore[arg-type]
    clients.answered("shop/")
    parsed: dict[str, Any] = {"Error": {"Code": code}} if code else {}
    clients.fail_if_refused(http_response=SimpleNamespace(status_code=status), parsed=parsed, model=None)
    assert clients.must_ask("shop/") is failed


@pytest.mark.slow
def test_a_kept_store_is_not_asked_twice_but_again_after_a_failure(store_settings: StoreSettings) -> None:
    port = int(str(store_settings.endpoint_url).rsplit(":", 1)[1])
    with tcp_relay(port) as relay:
        settings = store_settings.model_copy(update={"endpoint_url": f"http://127.0.0.1:{relay.port}"})
        store = open_store(settings, ENVIRONMENT, hurried=True, kept=True)
        asked: list[str] = []
        end = store.backend.watch(asked.append)
        again = open_store(settings, ENVIRONMENT, hurried=True, kept=True)
        assert s3_of(again).client is s3_of(store).client
        assert asked == []
        relay.cut()
        with pytest.raises(StoreError):
            again.get_bytes("a")
        with pytest.raises(StoreError, match="reach"):
            open_store(settings, ENVIRONMENT, hurried=True, kept=True)
        relay.mend()
        found = open_store(settings, ENVIRONMENT, hurried=True, kept=True)
        assert s3_of(found).client is not s3_of(store).client
        end()


def _bucket(name: str) -> StoreSettings:
    return ELSEWHERE.model_copy(update={"bucket": name})
