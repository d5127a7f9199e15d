"""What a bad network and a struggling server do to uploads and downloads: nothing, or a clear error."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tmi_ops.errors import ObjectExistsError, StoreError
from tmi_ops.settings import StoreSettings
from tmi_ops.store.backend import IfAbsent, IfUnchanged, ObjectChangedError
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops.store.s3 import download, upload
from tmi_ops.store.small_objects import look
from tmi_ops_tests.store.conftest import ENVIRONMENT, RawBucket
from tmi_ops_tests.store.faulty_proxy import Fault, FaultyProxy, Request, faulty_proxy

pytestmark = pytest.mark.slow

KEY = "logical/20260101T020000Z-logical-0000/database.dump"
DATA = os.urandom(3 * upload.PART_SIZE)


@pytest.fixture
def proxy(store_settings: StoreSettings) -> Iterator[FaultyProxy]:
    with faulty_proxy(store_settings) as running:
        yield running


@pytest.fixture
def shaky(proxy: FaultyProxy) -> ObjectStore:
    """The store, reached through the proxy."""
    return open_store(proxy.settings, ENVIRONMENT)


@pytest.mark.parametrize("fault", ["refuse 500", "refuse 503", "cut request", "damage request", "lose answer"])
def test_an_upload_whose_parts_fail_at_first_succeeds(
    proxy: FaultyProxy, shaky: ObjectStore, raw: RawBucket, fault: Fault
) -> None:
    proxy.first(3, fault, lambda request: request.is_part)

    stored = shaky.upload(KEY, [DATA])

    assert proxy.suffered == [fault] * 3
    assert stored.size == len(DATA)
    assert raw.read(KEY) == DATA


@pytest.mark.parametrize("fault", ["refuse 503", "cut request", "damage request", "lose answer"])
def test_a_small_upload_that_fails_at_first_succeeds(
    proxy: FaultyProxy, shaky: ObjectStore, raw: RawBucket, fault: Fault
) -> None:
    proxy.first(1, fault, lambda request: request.method == "PUT")

    shaky.upload(KEY, [b"small"])

    assert proxy.suffered == [fault]
    assert raw.read(KEY) == b"small"


def test_a_completion_whose_answer_was_lost_is_recognised_as_done(
    proxy: FaultyProxy, shaky: ObjectStore, raw: RawBucket
) -> None:
    proxy.first(1, "lose answer", lambda request: request.is_completion)

    shaky.upload(KEY, [DATA])

    assert proxy.suffered == ["lose answer"]
    assert raw.read(KEY) == DATA


def test_an_upload_that_the_server_keeps_refusing_fails_and_leaves_nothing(
    proxy: FaultyProxy, shaky: ObjectStore, raw: RawBucket
) -> None:
    proxy.first(1000, "damage request", lambda request: request.is_part and "partNumber=2" in request.path)

    with pytest.raises(StoreError, match=KEY):
        shaky.upload(KEY, [DATA])

    assert raw.keys() == []
    assert raw.uploads() == []


@pytest.mark.parametrize("fault", ["cut answer", "refuse 503", "lose answer"])
def test_a_download_goes_on_where_its_connection_broke(proxy: FaultyProxy, shaky: ObjectStore, fault: Fault) -> None:
    stored = shaky.upload(KEY, [DATA])
    proxy.first(4, fault, lambda request: request.is_range)

    assert b"".join(shaky.download(KEY, stored)) == DATA
    assert proxy.suffered == [fault] * 4


def test_a_range_that_broke_is_not_fetched_again_from_its_beginning(proxy: FaultyProxy, shaky: ObjectStore) -> None:
    size = download.RANGE_SIZE
    stored = shaky.upload(KEY, [DATA[:size]])
    asked: list[str] = []

    def choose(request: Request) -> Fault | None:
        if request.is_range:
            asked.append(request.headers["Range"])
        return "cut answer" if len(asked) == 1 else None

    proxy.choose = choose

    assert b"".join(shaky.download(KEY, stored)) == DATA[:size]
    assert asked[0] == f"bytes=0-{size - 1}"
    assert int(asked[1].removeprefix("bytes=").split("-")[0]) >= size // 4


def test_a_download_whose_connection_always_breaks_ends_in_a_clear_error(
    proxy: FaultyProxy, shaky: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "BREAKS", 2)
    stored = shaky.upload(KEY, [DATA[:1000]])
    proxy.choose = lambda request: "cut answer" if request.is_range else None

    with pytest.raises(StoreError, match="broke 2 times while reading"):
        list(shaky.download(KEY, stored))


def test_a_conditional_put_whose_answer_was_lost_is_ours(proxy: FaultyProxy, shaky: ObjectStore) -> None:
    shaky.put_if_absent("other", b"")
    proxy.first(1, "lose answer", lambda request: "If-None-Match" in request.headers)

    shaky.put_if_absent("manifest.json", b"ours")

    assert proxy.suffered == ["lose answer"]
    with pytest.raises(ObjectExistsError):
        shaky.put_if_absent("manifest.json", b"ours")


@pytest.mark.parametrize("fault", ["lose answer", "refuse 503", "cut request", "damage request", "empty 200"])
def test_a_quick_put_that_fails_goes_the_long_way_and_is_refused_as_that_one_is(
    proxy: FaultyProxy, shaky: ObjectStore, fault: Fault
) -> None:
    shaky.put_if_absent("other", b"")
    proxy.first(1, fault, lambda request: "If-None-Match" in request.headers)

    stored = shaky.put("piece", b"ours", {"lsn": "0/1"}, IfAbsent(), quick=True)

    assert proxy.suffered == [fault]
    found = look(shaky, "piece")
    assert found is not None
    assert (found.etag, found.metadata["lsn"]) == (stored.etag, "0/1")
    with pytest.raises(ObjectExistsError):
        shaky.put("piece", b"ours", {"lsn": "0/1"}, IfAbsent(), quick=True)
    again = shaky.put("piece", b"more", condition=IfUnchanged(stored.etag), quick=True)
    with pytest.raises(ObjectChangedError):
        shaky.put("piece", b"less", condition=IfUnchanged(stored.etag), quick=True)
    assert again.etag != stored.etag


@pytest.mark.parametrize("quick", [False, True])
def test_a_yes_without_an_etag_is_no_yes(proxy: FaultyProxy, shaky: ObjectStore, quick: bool) -> None:
    proxy.choose = lambda request: "empty 200" if request.method == "PUT" else None
    with pytest.raises(StoreError, match="without an ETag") as failed:
        shaky.put("piece", b"x", quick=quick)
    assert failed.value.transient
    assert look(shaky, "piece") is None


@pytest.mark.parametrize("fault", ["refuse 501", "hide 412"])
def test_a_server_that_ignores_if_match_overwrites_nobody_who_was_seen(
    proxy: FaultyProxy, shaky: ObjectStore, fault: Fault
) -> None:
    """Two receivers and one lease: the later one must learn that the object is another's by now."""
    proxy.choose = lambda request: fault if request.method == "PUT" and "If-Match" in request.headers else None
    etag = shaky.put("lease.json", b"one").etag
    with pytest.warns(RuntimeWarning, match=r"no conditional put \(If-Match\)"):
        second = shaky.put("lease.json", b"two", condition=IfUnchanged(etag)).etag
    probes = len(proxy.suffered)
    with pytest.raises(ObjectChangedError):
        shaky.put("lease.json", b"three", condition=IfUnchanged(etag))
    shaky.put("lease.json", b"four", condition=IfUnchanged(second))
    assert len(proxy.suffered) == probes, "asked once"
    assert shaky.get_bytes("lease.json") == b"four"


@pytest.mark.parametrize("fault", ["refuse 501", "hide 412"])
def test_a_server_without_conditional_puts_is_recognised_once_and_looked_at_first(
    proxy: FaultyProxy, shaky: ObjectStore, fault: Fault
) -> None:
    proxy.choose = lambda request: fault if "If-None-Match" in request.headers else None

    with pytest.warns(RuntimeWarning, match="no conditional put"):
        shaky.put_if_absent("manifest.json", b"first")
    probes = len(proxy.suffered)
    with pytest.raises(ObjectExistsError):
        shaky.put_if_absent("manifest.json", b"second")

    assert len(proxy.suffered) == probes
    assert shaky.get_bytes("manifest.json") == b"first"
