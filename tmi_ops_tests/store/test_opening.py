"""Opening the store with something wrong: the right error, quickly, with the next step."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from pydantic import SecretStr

from tmi_ops.errors import StoreError
from tmi_ops.settings import StoreSettings
from tmi_ops.store.objects import open_store
from tmi_ops.store.s3.client import store_session
from tmi_ops_tests.store.conftest import ENVIRONMENT

pytestmark = pytest.mark.timeout(60)  # the default of 300 s would let a refusal that comes late pass


def refusal(settings: StoreSettings) -> str:
    with pytest.raises(StoreError) as caught:
        open_store(settings, ENVIRONMENT)
    message = str(caught.value)
    assert "HINT: " in message
    assert settings.secret_access_key is None or settings.secret_access_key.get_secret_value() not in message
    return message


def test_no_bucket_configured(s3: StoreSettings) -> None:
    assert "TMI_OPS_S3_BUCKET" in refusal(s3)


def test_a_bucket_that_does_not_exist(s3: StoreSettings) -> None:
    message = refusal(s3.model_copy(update={"bucket": "never-made"}))

    assert "bucket of s3://never-made" in message
    assert "does not exist" in message


@pytest.mark.parametrize("field", ["access_key_id", "secret_access_key"])
def test_wrong_keys(store_settings: StoreSettings, field: str) -> None:
    message = refusal(store_settings.model_copy(update={field: SecretStr("wrong-key-of-somebody")}))

    assert "rejected the access keys" in message
    assert "TMI_OPS_S3_SECRET_ACCESS_KEY" in message


def test_no_keys_at_all(store_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")

    message = refusal(store_settings.model_copy(update={"access_key_id": None, "secret_access_key": None}))

    assert "No access keys are configured for the store" in message


def test_keys_of_the_standard_chain_are_used_where_none_are_configured(
    store_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store_settings.access_key_id is not None
    assert store_settings.secret_access_key is not None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", store_settings.access_key_id.get_secret_value())
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", store_settings.secret_access_key.get_secret_value())

    store = open_store(
        store_settings.model_copy(update={"access_key_id": None, "secret_access_key": None}), ENVIRONMENT
    )

    assert list(store.list_objects("")) == []


def test_a_profile_that_does_not_exist(store_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")

    assert "AWS_PROFILE" in refusal(store_settings)


def test_an_endpoint_where_nobody_listens(store_settings: StoreSettings) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        message = refusal(store_settings.model_copy(update={"endpoint_url": f"http://127.0.0.1:{port}"}))

    assert "could not be reached" in message
    assert "TMI_OPS_S3_ENDPOINT_URL" in message


def test_an_endpoint_whose_name_does_not_resolve(store_settings: StoreSettings) -> None:
    message = refusal(store_settings.model_copy(update={"endpoint_url": "http://no-such-host.invalid:8333"}))

    assert "could not be reached" in message


@pytest.mark.parametrize("endpoint", ["localhost:8333", "not an address", "http://"])
def test_an_endpoint_that_is_no_address(store_settings: StoreSettings, endpoint: str) -> None:
    message = refusal(store_settings.model_copy(update={"endpoint_url": endpoint}))

    assert "TMI_OPS_S3_ENDPOINT_URL" in message


def test_https_to_a_server_that_speaks_http(store_settings: StoreSettings) -> None:
    assert store_settings.endpoint_url is not None
    endpoint = store_settings.endpoint_url.replace("http://", "https://")

    message = refusal(store_settings.model_copy(update={"endpoint_url": endpoint}))

    assert "TLS" in message


@pytest.fixture
def web_server() -> Iterator[str]:
    """A server that is no S3 server."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>welcome</html>")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_server_that_is_no_s3_server(store_settings: StoreSettings, web_server: str) -> None:
    assert "S3" in refusal(store_settings.model_copy(update={"endpoint_url": web_server}))


def test_a_recipient_that_is_no_age_key(store_settings: StoreSettings) -> None:
    message = refusal(store_settings.model_copy(update={"age_recipients": ("AGE-SECRET-KEY-1QQQQ",)}))

    assert "TMI_OPS_AGE_RECIPIENTS" in message
    assert "1QQQQ" not in message


def test_the_handle_shows_no_secret(store_settings: StoreSettings) -> None:
    assert store_settings.secret_access_key is not None

    store = open_store(store_settings, ENVIRONMENT)

    assert store_settings.secret_access_key.get_secret_value() not in repr(store)
    assert store.root == f"{store_settings.prefix}/{ENVIRONMENT}/"


def test_a_process_reads_s3_s_description_once_however_often_it_opens_the_store() -> None:
    loaders = [store_session()._session.get_component("data_loader") for _ in range(3)]
    assert len({id(loader) for loader in loaders}) == 1
    assert len(loaders[0].search_paths) == len(set(loaders[0].search_paths))


def test_each_opening_reads_the_credentials_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    for key in ("first", "second"):
        file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n")
        credentials = store_session().get_credentials()
        assert credentials is not None
        assert credentials.access_key == key
