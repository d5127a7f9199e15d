"""Set-ups in which backups have nowhere to go, or may not do there what they must."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tmi_ops.checks.finding import Outcome
from tmi_ops.postgres.cluster import free_port
from tmi_ops.settings import RedisSettings, StoreSettings
from tmi_ops.store.s3 import visit
from tmi_ops.store.s3.client import store_session
from tmi_ops_tests.diagnosis.asserting import assert_cause
from tmi_ops_tests.diagnosis.conftest import Examine, Variables
from tmi_ops_tests.raw_s3 import raw_client, stored_keys
from tmi_ops_tests.store.faulty_proxy import FaultyProxy, Request, faulty_proxy


@pytest.fixture
def proxy(store_settings: StoreSettings) -> Iterator[FaultyProxy]:
    """Stands for a server with finer rights, or a worse clock, than the S3 server here can be given."""
    with faulty_proxy(store_settings) as between:
        yield between


def test_no_bucket_at_all_is_named_first(examine: Examine) -> None:
    assert_cause(examine(TMI_OPS_S3_BUCKET=None), "store-settings", "TMI_OPS_S3_BUCKET is not set", "tmi-ops up")


def test_an_endpoint_that_is_no_address_is_named(examine: Examine) -> None:
    diagnosis = examine(TMI_OPS_S3_ENDPOINT_URL="s3.example.org:9000")
    assert_cause(diagnosis, "store-settings", "not the address of an S3 server", "https://host:port")


def test_a_key_of_age_that_is_none_is_named_without_being_shown(examine: Examine) -> None:
    diagnosis = examine(TMI_OPS_AGE_RECIPIENTS="AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQ")
    assert_cause(diagnosis, "store-settings", "not a public age key", "age-keygen")
    assert "QQQQQQ" not in repr(diagnosis)


def test_an_endpoint_whose_name_does_not_resolve_is_named(examine: Examine) -> None:
    diagnosis = examine(TMI_OPS_S3_ENDPOINT_URL="https://s3.invalid")
    assert_cause(diagnosis, "store-address", "s3.invalid does not resolve", "set TMI_OPS_S3_ENDPOINT_URL")
    assert diagnosis.result("archiver").outcome is Outcome.OK


def test_an_s3_server_that_is_not_running_is_named(examine: Examine) -> None:
    port = free_port()
    diagnosis = examine(TMI_OPS_S3_ENDPOINT_URL=f"http://127.0.0.1:{port}")
    assert_cause(diagnosis, "store-address", f"127.0.0.1:{port} refuses", "tmi-ops up")
    assert diagnosis.result("bucket").because == "store-address"


def test_tls_towards_a_server_that_speaks_none_is_named(examine: Examine, healthy: Variables) -> None:
    plain = healthy["TMI_OPS_S3_ENDPOINT_URL"]
    diagnosis = examine(TMI_OPS_S3_ENDPOINT_URL=plain.replace("http://", "https://"))
    assert_cause(diagnosis, "store-address", "TLS connection to the store", "only if the server supports it")


def test_a_server_that_is_no_s3_server_is_named(examine: Examine, redis_server: RedisSettings) -> None:
    diagnosis = examine(TMI_OPS_S3_ENDPOINT_URL=f"http://127.0.0.1:{redis_server.port}")
    assert_cause(diagnosis, "store-address", "no S3 server", "TMI_OPS_S3_ENDPOINT_URL")


def test_an_unknown_access_key_is_told_from_a_wrong_secret(examine: Examine) -> None:
    unknown = examine(TMI_OPS_S3_ACCESS_KEY_ID="AKIANOBODY")
    assert_cause(unknown, "store-keys", "does not know this key ID", "TMI_OPS_S3_ACCESS_KEY_ID")
    wrong = examine(TMI_OPS_S3_SECRET_ACCESS_KEY="wrong")
    assert_cause(wrong, "store-keys", "the secret key does not match", "TMI_OPS_S3_SECRET_ACCESS_KEY")


def test_keys_that_are_nowhere_are_asked_for(examine: Examine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(visit, "store_session", store_session)  # one that has looked nowhere yet
    diagnosis = examine(TMI_OPS_S3_ACCESS_KEY_ID=None, TMI_OPS_S3_SECRET_ACCESS_KEY=None)
    assert_cause(diagnosis, "store-keys", "no keys are set", "AWS_ACCESS_KEY_ID")


def test_a_missing_bucket_is_made_by_the_command_that_is_named(examine: Examine, store_settings: StoreSettings) -> None:
    fix = assert_cause(
        examine(TMI_OPS_S3_BUCKET="doctor-nowhere"), "bucket", "the bucket doctor-nowhere does not exist"
    )
    command = f"aws s3 mb s3://doctor-nowhere --region us-east-1 --endpoint-url {store_settings.endpoint_url}"
    assert fix[-1] == command
    raw_client(store_settings).create_bucket(Bucket="doctor-nowhere")  # what the command does
    try:
        assert examine(TMI_OPS_S3_BUCKET="doctor-nowhere").root_cause is None
    finally:
        raw_client(store_settings).delete_bucket(Bucket="doctor-nowhere")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("denied", "name", "right"),
    [
        pytest.param(lambda r: r.method == "GET" and "list-type" in r.path, "store-list", "s3:ListBucket", id="list"),
        pytest.param(lambda r: r.method == "PUT" and "?" not in r.path, "store-put", "s3:PutObject", id="put"),
        pytest.param(lambda r: r.method == "GET" and ".doctor/" in r.path and "?" not in r.path, "store-get",
                     "s3:GetObject", id="get"),
        pytest.param(lambda r: r.is_part, "store-multipart", "s3:PutObject", id="part"),
        pytest.param(lambda r: "uploadId" in r.path and r.method == "DELETE", "store-multipart",
                     "s3:AbortMultipartUpload", id="abort"),
        pytest.param(lambda r: r.method == "DELETE" and "?" not in r.path, "store-delete", "s3:DeleteObject",
                     id="delete"),
    ],
)  # fmt: skip
def test_a_right_that_the_keys_lack_is_named_with_the_statement_that_gives_it(
    examine: Examine, proxy: FaultyProxy, denied: Callable[[Request], bool], name: str, right: str
) -> None:
    through = proxy.settings.endpoint_url
    proxy.choose = lambda request: "refuse 403" if denied(request) else None
    outcome = Outcome.WARNING if name == "store-delete" else Outcome.CRITICAL
    diagnosis = examine(TMI_OPS_S3_ENDPOINT_URL=through)
    fix = assert_cause(diagnosis, name, f'"Action": "{right}"', "arn:aws:s3:::", outcome=outcome)
    bucket, prefix = proxy.settings.bucket, proxy.settings.prefix
    assert any(f"{bucket}{'' if right == 's3:ListBucket' else f'/{prefix}/development/*'}" in line for line in fix)
    proxy.choose = lambda request: None
    assert examine(TMI_OPS_S3_ENDPOINT_URL=through).root_cause is None


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_a_server_without_conditional_puts_is_a_warning(examine: Examine, proxy: FaultyProxy, header: str) -> None:
    proxy.choose = lambda request: "hide 412" if request.method == "PUT" and header in request.headers else None
    diagnosis = examine(TMI_OPS_S3_ENDPOINT_URL=proxy.settings.endpoint_url)
    assert_cause(diagnosis, "store-conditional-put", "let only one tmi_ops", outcome=Outcome.WARNING)


@pytest.mark.parametrize(
    ("skew", "outcome"),
    [
        pytest.param(timedelta(minutes=-2), Outcome.WARNING, id="two minutes behind"),
        pytest.param(timedelta(hours=1), Outcome.CRITICAL, id="an hour ahead"),
    ],
)
def test_clocks_that_differ_are_named_before_the_keys_they_spoil(
    examine: Examine, proxy: FaultyProxy, skew: timedelta, outcome: Outcome
) -> None:
    proxy.clock = lambda: datetime.now(UTC) + skew
    diagnosis = examine(TMI_OPS_S3_ENDPOINT_URL=proxy.settings.endpoint_url)
    words = "behind the S3 server" if skew > timedelta(0) else "ahead of the S3 server"
    assert_cause(diagnosis, "store-clock", words, "timedatectl set-ntp true", outcome=outcome)


def test_the_doctor_leaves_no_object_behind(examine: Examine, store_settings: StoreSettings) -> None:
    examine()
    assert stored_keys(store_settings) == []
    assert (
        not raw_client(store_settings)
        .list_multipart_uploads(Bucket=store_settings.bucket or "", Prefix=store_settings.prefix)
        .get("Uploads")
    )
