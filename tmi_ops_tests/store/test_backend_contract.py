"""What every back end of the store promises, asked of each: an S3 server, and a directory."""

from __future__ import annotations

import functools
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from tmi_ops.errors import ObjectExistsError, ObjectMissingError, StoreError
from tmi_ops.settings import StoreSettings
from tmi_ops.store.backend import CHECKSUM, Backend, IfAbsent, IfUnchanged, ObjectChangedError, UnfinishedUpload
from tmi_ops.store.objects import make_place, open_store
from tmi_ops.store.restore_guide import restore_guide
from tmi_ops.store.s3 import backend as s3
from tmi_ops.store.s3.client import store_session

ENVIRONMENT = "development"
# In the order of their bytes, as no locale sorts.
ORDER = [
    *("a/B", "a/b", "a/b-c", "a/b.c", "a/bb/c", "a/c/x", "a/c/y", "a/c0/x"),
    *("a/\u00e9", "a/\uff5e", "a/\U0001f418", "b"),
]
ODD = [
    *("with space", "plus+and%25", "quote'\"", "*?[x]", "$(x);&|", "-rf", ".hidden"),
    "\u00fc\u20ac\U0001f418",
]
LARGE = 40 << 20


@pytest.fixture(scope="module", autouse=True)
def one_boto_session() -> Iterator[None]:
    """A session takes boto 0.2 s to make; here sixty back ends share one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3, "store_session", functools.cache(store_session))
        yield


@pytest.fixture(params=["s3", "directory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> StoreSettings:
    if request.param == "s3":
        return request.getfixturevalue("store_settings")  # type: ignore[no-any-return]
    settings = StoreSettings(directory=tmp_path / "backups")
    make_place(settings)
    return settings


@pytest.fixture
def backend(place: StoreSettings) -> Backend:
    return open_store(place, ENVIRONMENT).backend


@pytest.fixture
def other(place: StoreSettings) -> Backend:
    """The same store, as another process opens it."""
    return open_store(place, ENVIRONMENT).backend


def keys(backend: Backend, prefix: str = "", after: str = "") -> list[str]:
    """Of the test: an S3 server was asked with an object of ours whether it refuses to overwrite."""
    return [one.key for one in backend.objects(prefix, after=after) if one.key != ".conditional-put"]


def test_what_is_put_is_there_with_its_metadata_and_its_checksum(backend: Backend, other: Backend) -> None:
    put = backend.put("a/b", b"bytes", {"name": "value"})
    head = other.head("a/b")
    assert head is not None
    assert other.get("a/b")[0] == b"bytes"
    assert (head.size, head.etag) == (5, put.etag)
    assert head.metadata == {"name": "value", CHECKSUM: hashlib.sha256(b"bytes").hexdigest()}
    (listed,) = other.objects("")
    assert (listed.key, listed.size, listed.etag) == ("a/b", 5, put.etag)
    assert abs((listed.modified - head.modified).total_seconds()) <= 1
    assert -2 <= head.age_s < 60
    assert abs((backend.clock() - head.modified).total_seconds()) < 60


def test_a_put_without_a_condition_replaces_bytes_and_metadata_and_may_be_repeated(backend: Backend) -> None:
    first = backend.put("x", b"one", {"a": "1"})
    second = backend.put("x", b"two, longer", {"b": "2"})
    assert second.etag != first.etag
    third = backend.put("x", b"two, longer", {"b": "2"})
    body, head = backend.get("x")
    assert head.etag == third.etag
    assert (body, head.metadata["b"], "a" in head.metadata) == (b"two, longer", "2", False)
    assert keys(backend) == ["x"]


def test_what_is_missing_is_said_so_by_each_verb(backend: Backend) -> None:
    backend.put("a/b", b"")
    for key in ("nothing", "a", "a/b/c", "a/b2"):
        assert backend.head(key) is None
        asked: list[Callable[[str], Any]] = [backend.get, lambda key: backend.get_beginning(key, 10), backend.stream]
        for ask in asked:
            with pytest.raises(ObjectMissingError):
                ask(key)
        with pytest.raises(StoreError):
            backend.restamp(key, {}, '"0123"')
    with pytest.raises(ObjectChangedError):
        backend.put("a/b2", b"x", condition=IfUnchanged('"0123"'))
    assert backend.delete([("nothing", None), ("also/nothing", None)]) == []
    assert keys(backend, "nothing") == []
    assert backend.level("nothing/") == ([], [])
    assert list(backend.unfinished("nothing")) == []
    assert keys(backend) == ["a/b"]


def test_a_put_only_where_nothing_is_leaves_what_is_there(backend: Backend, other: Backend) -> None:
    backend.put("x", b"first", {"mine": "yes"}, IfAbsent())
    with pytest.raises(ObjectExistsError) as refused:
        other.put("x", b"second", {"mine": "no"}, IfAbsent())
    assert not isinstance(refused.value, ObjectChangedError)
    assert backend.get("x")[0] == b"first"
    assert backend.get("x")[1].metadata["mine"] == "yes"


def test_a_put_over_what_was_seen_is_refused_once_it_is_another(backend: Backend, other: Backend) -> None:
    seen = backend.put("x", b"first")
    newer = other.put("x", b"newer", condition=IfUnchanged(seen.etag))
    with pytest.raises(ObjectChangedError):
        backend.put("x", b"late", condition=IfUnchanged(seen.etag))
    assert backend.get("x")[0] == b"newer"
    backend.delete([("x", None)])
    with pytest.raises(ObjectChangedError):
        backend.put("x", b"late", condition=IfUnchanged(newer.etag))
    assert backend.head("x") is None


@pytest.mark.parametrize("quick", [False, True])
def test_of_many_writers_at_the_same_instant_one_wins(backend: Backend, other: Backend, quick: bool) -> None:
    stores = (backend, other) * 2
    for number in range(3):
        key, start = f"race/{number}", Barrier(len(stores))

        def write(place: int, key: str = key, start: Barrier = start) -> bool:
            start.wait()
            try:
                stores[place].put(key, f"{place}".encode(), {"writer": f"{place}"}, IfAbsent(), quick=quick)
            except ObjectExistsError:
                return False
            return True

        with ThreadPoolExecutor(len(stores)) as pool:
            won = list(pool.map(write, range(len(stores))))
        body, head = backend.get(key)
        assert [place for place, mine in enumerate(won) if mine] == [int(body)]
        assert head.metadata["writer"].encode() == body


def test_of_many_writers_who_saw_the_same_one_wins(backend: Backend, other: Backend) -> None:
    stores = (backend, other) * 2
    etag, start = backend.put("x", b"seen").etag, Barrier(4)

    def write(place: int) -> bool:
        start.wait()
        try:
            stores[place].put("x", f"{place}".encode(), condition=IfUnchanged(etag))
        except ObjectChangedError:
            return False
        return True

    with ThreadPoolExecutor(len(stores)) as pool:
        won = list(pool.map(write, range(len(stores))))
    assert [place for place, mine in enumerate(won) if mine] == [int(backend.get("x")[0])]


def test_a_reader_beside_a_writer_sees_bytes_with_their_own_metadata(backend: Backend, other: Backend) -> None:
    """Bodies of one size, so that only their content tells them apart."""
    bodies = [bytes([number]) * 1000 for number in range(30)]
    backend.put("x", bodies[0], {"number": "0"})

    def write() -> None:
        for number, body in enumerate(bodies):
            other.put("x", body, {"number": f"{number}"})

    seen: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not writing.done():
            body, head = backend.get("x")
            seen.append(int(head.metadata["number"]))
            assert body == bodies[seen[-1]]
            assert head.metadata[CHECKSUM] == hashlib.sha256(body).hexdigest()
        writing.result()
    assert seen == sorted(seen)


def test_whoever_deletes_the_last_object_of_a_folder_does_not_disturb_who_writes_there(
    backend: Backend, other: Backend
) -> None:
    def write_and_delete(store: Backend, name: str) -> None:
        for number in range(20):
            store.put(f"deep/er/{name}{number}", b"x", condition=IfAbsent())
            assert store.delete([(f"deep/er/{name}{number}", None)]) == []
        store.put(f"deep/er/{name}", b"kept")

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(write_and_delete, *one) for one in ((backend, "a"), (other, "b"), (other, "c"))]:
            done.result()
    assert keys(backend) == ["deep/er/a", "deep/er/b", "deep/er/c"]


def test_listings_are_in_the_order_of_bytes_and_begin_where_they_are_told(backend: Backend) -> None:
    for key in reversed(ORDER):
        backend.put(key, b"")
    assert sorted(ORDER, key=str.encode) == ORDER
    assert keys(backend) == ORDER
    for number, key in enumerate(ORDER):
        assert keys(backend, after=key) == ORDER[number + 1 :]
    assert keys(backend, after="a/bz") == ORDER[5:]
    assert keys(backend, "a/c") == ORDER[5:8]
    assert keys(backend, "a/c", after="a/c/xx") == ORDER[6:8]
    assert keys(backend, "a/", after="b") == []


def test_a_level_has_objects_and_folders_apart(backend: Backend) -> None:
    for key in ORDER:
        backend.put(key, b"")
    objects, folders = backend.level("a/")
    assert [one.key for one in objects] == [key for key in ORDER if key.startswith("a/") and key.count("/") == 1]
    assert folders == ["bb", "c", "c0"]
    assert backend.level("")[1] == ["a"]
    assert backend.level("a/", after="a/bz")[1] == ["c", "c0"]


@pytest.mark.slow
def test_listing_and_deleting_go_beyond_a_page(place: StoreSettings, backend: Backend) -> None:
    pages = 1010 if place.bucket else 110  # S3 lists and deletes by the thousand; a directory has no pages
    names = [f"many/{number:04}" for number in range(pages)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: backend.put(key, b""), names))
    assert keys(backend, "many/") == names
    assert keys(backend, "many/", after=names[5]) == names[6:]
    assert len(backend.level("many/")[0]) == len(names)
    open_store(place, ENVIRONMENT).delete([*names, "many/never-there"])
    assert keys(backend) == []


@pytest.mark.parametrize("name", ODD)
def test_keys_may_have_odd_characters(backend: Backend, name: str) -> None:
    key = f"odd/{name}"
    etag = backend.put(key, name.encode(), condition=IfAbsent()).etag
    backend.restamp(key, {"kind": "odd"}, etag)
    body, head = backend.get(key)
    assert (body, head.metadata) == (name.encode(), {"kind": "odd"})
    assert keys(backend) == [key]
    assert b"".join(backend.stream(key).chunks) == name.encode()
    assert backend.delete([(key, None)]) == []
    assert keys(backend) == []


def test_no_more_is_read_than_was_asked_for(backend: Backend) -> None:
    body = os.urandom(300_000)
    backend.put("x", body)
    assert backend.get("x", limit=1000)[0] == body[:1000]
    assert backend.get("x", limit=1000)[1].size == len(body)
    assert backend.get_beginning("x", 4096) == body[:4096]
    assert backend.get_beginning("x", 1 << 20) == body


@pytest.mark.slow
def test_a_large_object_is_streamed_and_appears_whole(backend: Backend, other: Backend) -> None:
    body = secrets.token_bytes(LARGE)
    backend.put("large", b"older")
    upload = backend.upload("large")
    for start in range(0, LARGE, 3 << 20):
        upload.write(body[start : start + (3 << 20)])
    assert other.get("large")[0] == b"older"
    assert [one.key for one in other.unfinished("lar")] == ["large"]
    assert list(other.unfinished("other")) == []
    digest = upload.finish()
    assert (digest.size, digest.sha256) == (LARGE, hashlib.sha256(body).hexdigest())
    stream = other.stream("large")
    assert stream.size == LARGE
    assert hashlib.sha256(b"".join(stream.chunks)).hexdigest() == digest.sha256
    assert list(other.unfinished("")) == []


def test_a_small_object_may_be_streamed_too(backend: Backend) -> None:
    for body in (b"", b"small"):
        upload = backend.upload("x")
        upload.write(body)
        assert upload.finish().size == len(body)
        assert backend.stream("x").size == len(body)
        assert b"".join(backend.stream("x").chunks) == body


def test_what_is_aborted_was_never_there(backend: Backend, other: Backend) -> None:
    upload = backend.upload("x")
    upload.write(b"x" * (17 << 20))
    upload.abort()
    upload.abort()
    assert (other.head("x"), list(other.unfinished("")), keys(other)) == (None, [], [])


def test_another_may_end_an_unfinished_upload_and_it_leaves_nothing(backend: Backend, other: Backend) -> None:
    upload = backend.upload("deep/x")
    upload.write(b"x" * (33 << 20))
    (unfinished,) = other.unfinished("deep/")
    assert -2 <= unfinished.age_s < 60
    other.abort(unfinished)
    other.abort(UnfinishedUpload(unfinished.key, unfinished.upload_id, unfinished.begun))
    assert list(other.unfinished("")) == []
    with pytest.raises(StoreError):
        upload.finish()
    upload.abort()
    assert (backend.head("deep/x"), keys(backend)) == (None, [])


def test_metadata_is_replaced_without_the_bytes_and_only_of_the_object_that_was_seen(backend: Backend) -> None:
    etag = backend.put("x", b"bytes", {"a": "1"}).etag
    backend.restamp("x", {"b": "2"}, etag)
    body, head = backend.get("x")
    assert (body, head.metadata, head.etag) == (b"bytes", {"b": "2"}, etag)
    backend.put("x", b"other")
    with pytest.raises(StoreError):
        backend.restamp("x", {"c": "3"}, etag)
    assert "c" not in backend.get("x")[1].metadata


def test_deleting_takes_the_metadata_along(backend: Backend) -> None:
    backend.put("a/x", b"same", {"old": "yes"})
    assert backend.delete([("a/x", None)]) == []
    assert backend.head("a/x") is None
    backend.put("a/x", b"same")
    assert "old" not in backend.get("a/x")[1].metadata


def test_environments_do_not_see_each_other(place: StoreSettings, backend: Backend) -> None:
    backend.put("x", b"ours")
    assert keys(open_store(place, "staging").backend) == []


def test_the_guide_names_the_place(place: StoreSettings) -> None:
    guide = restore_guide(open_store(place, ENVIRONMENT))
    assert f"ROOT='{place.address(ENVIRONMENT).rstrip('/')}'" in guide
    assert not {"@CONNECT@", "'@ENDPOINT@'", "'@REGION@'", "@ENVIRONMENT@"} & set(guide.split())
