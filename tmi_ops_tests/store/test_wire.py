"""The short way of a small put: what is signed, what is sent, and over which connections."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tmi_ops.settings import StoreSettings
from tmi_ops.store.backend import IfAbsent
from tmi_ops.store.objects import open_store
from tmi_ops.store.s3 import quick_put
from tmi_ops.store.s3.signature_v4 import Signer
from tmi_ops.store.s3.wire import Answer, Wire, WireError, parse_head
from tmi_ops.store.small_objects import look
from tmi_ops_tests.certificates import make_authority
from tmi_ops_tests.store.conftest import ENVIRONMENT
from tmi_ops_tests.tcp_relay import tcp_relay

OK = b'HTTP/1.1 200 OK\r\nETag: "a"\r\nContent-Length: 0\r\n\r\n'


@contextmanager
def answering(*connections: Sequence[bytes]) -> Iterator[int]:
    """A server that gives these answers, one to each request, and ends each connection after its last."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answers in connections:
                connection, _ = listener.accept()
                with connection:
                    for answer in answers:
                        connection.recv(1 << 16)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


def wire_to(port: int) -> Wire:
    return Wire("127.0.0.1", port, tls=None, connect_s=5, silence_s=5)


@pytest.mark.parametrize("token", [None, "a+token/of=them"])
def test_it_is_signed_as_botocore_signs_it(monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    now = datetime(2026, 11, 27, 2, tzinfo=UTC)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: now)
    headers = {"host": "127.0.0.1:8333", "if-none-match": "*", "x-amz-meta-a": "two  spaces ", "x-amz-meta-b": "1"}
    path, body = "/bucket/a%20key/~b", b"body"
    theirs = AWSRequest("PUT", f"http://127.0.0.1:8333{path}", data=body, headers=headers)
    S3SigV4Auth(Credentials("AK", "SK", token), "s3", "eu-west-1").add_auth(theirs)
    signer = Signer("AK", "SK", token, "eu-west-1")
    ours = signer.signed("PUT", path, headers, hashlib.sha256(body).hexdigest(), now)
    assert {name.title(): value for name, value in ours.items()} == {
        name.title(): value for name, value in theirs.headers.items()
    }


def test_a_connection_is_kept_and_another_made_where_the_server_ended_it() -> None:
    with answering([OK, OK], [OK]) as port:
        wire = wire_to(port)
        assert [wire.exchange(b"x").status for _ in range(3)] == [200] * 3
        wire.close()


@pytest.mark.parametrize(
    "ends",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nmore than it said",
    ],
)
def test_a_connection_on_which_nothing_may_follow_is_not_used_again(ends: bytes) -> None:
    with answering([ends], [OK]) as port:
        wire = wire_to(port)
        assert wire.exchange(b"x").status == 200
        assert not wire._kept
        assert wire.exchange(b"x").status == 200
        wire.close()


def test_a_refusal_is_read_to_its_end() -> None:
    refused = b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 5\r\n\r\nabcde"
    with answering([refused, OK]) as port:
        wire = wire_to(port)
        assert [wire.exchange(b"x").status for _ in range(2)] == [412, 200]
        wire.close()


@pytest.mark.parametrize("cut", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", OK.replace(b"0\r\n", b"9\r\n") + b"part"])
def test_an_answer_that_breaks_off_is_none(cut: bytes) -> None:
    with answering([cut]) as port:
        wire = wire_to(port)
        with pytest.raises(OSError):
            wire.exchange(b"x")
        assert not wire._kept


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 100 Continue", b"HTTP/1.1 2000 OK", b"SSH-2.0 x", b"HTTP/1.1 2x0 OK", b"", b"HTTP/1.1"]
)
def test_what_is_no_answer_is_refused(head: bytes) -> None:
    with pytest.raises(WireError):
        parse_head(head)


def test_headers_are_found_in_whatever_case_they_come() -> None:
    head = b'HTTP/1.1 200 OK\r\nEtag: "a:b"\r\nX-AMZ-Version-Id:v'
    assert parse_head(head) == (Answer(200, {"etag": '"a:b"', "x-amz-version-id": "v"}), "HTTP/1.1")


def test_a_quick_put_speaks_tls_with_whom_the_settings_trust(
    store_settings: StoreSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, other = make_authority(tmp_path / "ours", "ours"), make_authority(tmp_path / "other", "other")
    port = urlsplit(store_settings.endpoint_url or "").port or 0
    with tcp_relay(port, ours.certify("localhost").for_a_server()) as front:
        settings = store_settings.model_copy(update={"endpoint_url": f"https://localhost:{front.port}"})
        monkeypatch.setenv("AWS_CA_BUNDLE", str(ours.file))
        store = open_store(settings, ENVIRONMENT)
        quick: Any = store.backend.puts._quick
        monkeypatch.setattr(store.backend.client, "put_object", lambda **_: pytest.fail("it went the long way"))
        request = {
            "Bucket": store.backend.bucket,
            "Key": f"{store.root}tls",
            "Body": b"ours",
            "Metadata": {"lsn": "0/1"},
        }
        assert quick.takes(request)
        answer = quick.put(request)
        found = look(store, "tls")
        assert found is not None
        assert (found.etag, found.metadata["lsn"]) == (answer["ETag"], "0/1")
        monkeypatch.setattr("botocore.httpsession.get_cert_path", lambda _: str(other.file))
        with pytest.raises(OSError, match="certificate verify failed"):
            quick_put.QuickPuts(store.backend.client, store.backend.bucket).put(request)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy"])
def test_where_a_proxy_is_configured_the_put_goes_through_it(
    store_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    port = urlsplit(store_settings.endpoint_url or "").port or 0
    with tcp_relay(port) as proxy:  # to which the server's whole address is sent
        store = open_store(store_settings, ENVIRONMENT)
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
        behind = open_store(store_settings, ENVIRONMENT)
        request = {"Bucket": "b", "Key": "k", "Body": b"", "Metadata": {}}
        assert store.backend.puts._quick.takes(request)
        assert not behind.backend.puts._quick.takes(request)
        behind.put("through", b"it", condition=IfAbsent(), quick=True)
    assert look(store, "through") is not None


@pytest.mark.parametrize("value", ["ä", "two\r\nlines", "\x00"])
def test_metadata_that_is_no_plain_header_goes_the_long_way(store_settings: StoreSettings, value: str) -> None:
    quick = open_store(store_settings, ENVIRONMENT).backend.puts._quick
    assert not quick.takes({"Bucket": "b", "Key": "k", "Body": b"", "Metadata": {"note": value}})
