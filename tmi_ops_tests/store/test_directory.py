"""A store in a directory: what a stranger, a crash or a wrong setting does to it."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path

import pytest

from tmi_ops.error_codes import Code
from tmi_ops.errors import IntegrityError, SettingsError, StoreError
from tmi_ops.settings import Retain, StoreSettings, load_settings
from tmi_ops.store.backend import IfUnchanged, ObjectChangedError
from tmi_ops.store.catalogue import list_backups
from tmi_ops.store.directory.backend import DirectoryBackend
from tmi_ops.store.directory.labels import Label, label_of, parse, to_bytes, while_replacing
from tmi_ops.store.directory.places import moment
from tmi_ops.store.directory.refusals import failures_explained
from tmi_ops.store.directory.top import read_identity
from tmi_ops.store.guarding import has_object_lock, locked_until, may_delete, set_legal_hold
from tmi_ops.store.objects import ObjectStore, make_place, open_store
from tmi_ops.store.restore_guide import restore_guide
from tmi_ops.store.small_objects import get_single
from tmi_ops_tests.store.conftest import ENVIRONMENT
from tmi_ops_tests.store.test_signed_documents import NOW, take_backup

ROUNDS = 20
OLD, NEW, TWIN = Label("aa", 2, {"a": "1"}), Label("bb", 3, {"b": "2"}), Label("cc", 2, {})


@pytest.fixture
def settings(tmp_path: Path) -> StoreSettings:
    return StoreSettings(directory=tmp_path / "backups")


@pytest.fixture
def store(settings: StoreSettings) -> ObjectStore:
    make_place(settings)
    make_place(settings)
    return open_store(settings, ENVIRONMENT)


@pytest.fixture
def backend(store: ObjectStore) -> DirectoryBackend:
    assert isinstance(store.backend, DirectoryBackend)
    return store.backend


@pytest.fixture
def root(settings: StoreSettings) -> Path:
    return Path(settings.address(ENVIRONMENT))


@pytest.mark.parametrize(
    ("labels", "size", "found", "expected"),
    [
        ((), 2, "aa", None),
        ((OLD,), 2, "not asked", OLD),
        ((OLD,), 3, "not asked", None),
        ((OLD, NEW), 2, "not asked", OLD),
        ((OLD, NEW), 3, "not asked", NEW),
        ((OLD, TWIN), 2, "cc", TWIN),
        ((OLD, TWIN), 2, "aa", OLD),
        ((OLD, TWIN), 2, "dd", None),
    ],
)
def test_the_bytes_say_which_label_is_theirs(
    labels: tuple[Label, ...], size: int, found: str, expected: Label | None
) -> None:
    assert label_of(parse(to_bytes(labels)), size, lambda: found) == expected


def test_while_an_object_is_replaced_both_labels_are_kept_where_the_bytes_tell_them_apart() -> None:
    assert while_replacing(None, NEW) == (NEW,)
    assert while_replacing(OLD, NEW) == (OLD, NEW)
    assert while_replacing(OLD, Label("aa", 2, {"other": "1"})) == (Label("aa", 2, {"other": "1"}),)


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[1]", b"{}", b"[{}]", b'[{"sha256": 1, "size": "x", "metadata": {}}]']
)
def test_a_label_file_of_a_stranger_says_nothing(data: bytes) -> None:
    assert parse(data) == ()


@pytest.mark.parametrize(
    "key", ["", "/", "a/", "/a", "a//b", ".", "..", "../x", "a/../../x", "a/./b", "a\0b", "x" * 256, "\ud800"]
)
def test_no_key_leads_out_of_the_directory(backend: DirectoryBackend, tmp_path: Path, key: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError, match="cannot be a file"):
        backend.put(key, b"x")
    with pytest.raises(StoreError, match="cannot be a file"):
        backend.get(key)
    assert [one.key for one in backend.delete([(key, None)])] == [key]
    assert [path for path in sorted(tmp_path.rglob("*")) if "locks" not in path.parts] == before


def test_symbolic_links_are_not_followed(backend: DirectoryBackend, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    backend.put("kept", b"x")
    (root / "folder").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    assert [one.key for one in backend.objects("")] == ["kept"]
    assert backend.level("")[1] == []
    assert (backend.head("file"), backend.head("folder/secret")) == (None, None)
    with pytest.raises(StoreError):
        backend.put("folder/new", b"x")
    backend.put("file", b"ours")
    backend.delete([("folder/secret", None)])
    assert (outside / "secret").read_text() == "secret"
    assert sorted(outside.iterdir()) == [outside / "secret"]


def test_everything_is_for_its_owner_only(backend: DirectoryBackend, root: Path) -> None:
    backend.put("a/b", b"x")
    assert [path.stat().st_mode & 0o777 for path in (root / "a/b", root / "a", root.parents[1])] == [
        0o600,
        0o700,
        0o700,
    ]


def test_a_key_below_an_object_cannot_be_stored_and_the_object_stays(backend: DirectoryBackend) -> None:
    backend.put("a", b"object")
    with pytest.raises(StoreError, match="a/b cannot be stored"):
        backend.put("a/b", b"x")
    backend.put("c/d", b"x")
    with pytest.raises(StoreError, match="c cannot be stored"):
        backend.put("c", b"x")
    assert backend.delete([("c", None), ("a/b", None)]) == []
    assert [one.key for one in backend.objects("")] == ["a", "c/d"]
    assert list(backend.unfinished("")) == []


def test_listings_are_in_the_order_of_bytes_where_a_server_may_sort_folders_by_name(backend: DirectoryBackend) -> None:
    keys = ["c-/x", "c.d/x", "c/x", "c0/x", "back\\slash"]
    for key in keys:
        backend.put(key, b"")
    assert [one.key for one in backend.objects("")] == ["back\\slash", "c-/x", "c.d/x", "c/x", "c0/x"]
    assert [one.key for one in backend.objects("", after="c.d")] == ["c.d/x", "c/x", "c0/x"]
    assert backend.level("", after="c.d")[1] == ["c", "c.d", "c0"]
    backend.delete([("c.d/x", None)])
    assert backend.level("")[1] == ["c", "c-", "c0"]


def test_what_somebody_else_put_there_is_an_object_without_metadata(backend: DirectoryBackend, root: Path) -> None:
    backend.put("x", b"ours", {"a": "1"})
    (root / "x").write_bytes(b"somebody else's")
    body, head = backend.get("x")
    assert (body, head.metadata) == (b"somebody else's", {})
    (root / "x").write_bytes(b"else")
    assert backend.get("x")[1].metadata["a"] == "1"  # of the same size: its checksum is found to be wrong
    (root / "new").write_bytes(b"by hand")
    seen = backend.head("new")
    assert seen is not None
    backend.put("new", b"ours", condition=IfUnchanged(seen.etag))
    assert backend.get("new")[0] == b"ours"


@pytest.mark.parametrize(("mtime", "year"), [(-(10**12), 1970), (1767225600, 2026), (10**12, 9999)])
def test_a_file_from_a_year_that_no_calendar_has_has_a_time(mtime: int, year: int) -> None:
    assert moment(os.stat_result((0,) * 8 + (mtime, 0))).year == year


def test_altered_bytes_are_noticed(store: ObjectStore, root: Path) -> None:
    store.put_bytes("x", b"ours")
    before = store.backend.head("x")
    (root / "x").write_bytes(b"evil")
    with pytest.raises(IntegrityError, match="altered"):
        get_single(store, "x")
    (listed,) = store.list_objects("")
    assert before is not None
    assert listed.etag != before.etag, "whoever knows the object by its ETag reads it again"


def _count_up(directory: Path) -> None:
    """As a process of its own: replaces the number with the next one, as often as it wins."""
    backend = open_store(StoreSettings(directory=directory), ENVIRONMENT).backend
    won = 0
    while won < ROUNDS:
        body, head = backend.get("number")
        with suppress(ObjectChangedError):
            backend.put("number", f"{int(body) + 1}".encode(), condition=IfUnchanged(head.etag))
            won += 1


def test_processes_that_count_together_lose_no_step(backend: DirectoryBackend) -> None:
    backend.put("number", b"0")
    counting = [get_context("fork").Process(target=_count_up, args=(backend.directory,)) for _ in range(3)]
    for process in counting:
        process.start()
    for process in counting:
        process.join()
    assert [process.exitcode for process in counting] == [0, 0, 0]
    assert backend.get("number")[0] == f"{3 * ROUNDS}".encode()


_WRITER = """
import os, sys
from pathlib import Path
from tmi_ops.settings import StoreSettings
from tmi_ops.store.directory import backend as module
from tmi_ops.store.objects import open_store

renamed, rename = [], os.rename
def crash(*words, **more):
    if len(renamed) == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
    renamed.append(rename(*words, **more))
os.rename = crash
store = open_store(StoreSettings(directory=Path(sys.argv[1])), "development")
store.put("x", b"newer", {"number": "2"})
"""


@pytest.mark.slow
@pytest.mark.parametrize(("moved", "survives"), [(0, "1"), (1, "1"), (2, "2")])
def test_a_writer_that_is_killed_leaves_an_object_with_its_own_metadata(
    store: ObjectStore, backend: DirectoryBackend, settings: StoreSettings, moved: int, survives: str
) -> None:
    """It moves the labels, the object, and the label again."""
    backend.put("x", b"older", {"number": "1"})
    done = subprocess.run([sys.executable, "-c", _WRITER, str(settings.directory), str(moved)], check=False)
    assert done.returncode == -signal.SIGKILL
    body, head = get_single(store, "x")
    assert (body, head.metadata["number"]) == ({"1": b"older", "2": b"newer"}[survives], survives)
    backend.put("x", b"third", {"number": "3"}, IfUnchanged(head.etag))
    assert get_single(store, "x")[1].metadata["number"] == "3"
    for left in backend.unfinished(""):
        assert left.key == "x"
        backend.abort(left)
    assert list(backend.unfinished("")) == []


def test_a_backup_whose_manifest_is_damaged_on_the_disk_hides_no_other(store: ObjectStore, root: Path) -> None:
    sound, damaged = take_backup(store), take_backup(store, NOW - timedelta(days=1), end="bbbb")
    file = root / f"logical/{damaged.backup_id}/manifest.json"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    broken: list[StoreError] = []
    assert [entry.manifest.backup_id for entry in list_backups(store, broken.append)] == [sound.backup_id]
    assert [damaged.backup_id in error.message for error in broken] == [True]
    with pytest.raises(StoreError, match="could not be read completely"):
        list_backups(store)


@pytest.mark.parametrize("then", ["another writer tidies up", "the disk is full"])
def test_once_an_object_is_in_its_place_its_put_has_succeeded(
    backend: DirectoryBackend, root: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    older = backend.put("x", b"older", {"number": "1"})
    limits, rename = resource.getrlimit(resource.RLIMIT_FSIZE), os.rename
    drafts = backend.directory / ".tmi-ops-store/unfinished" / backend.root / "x"

    def renamed(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        if os.fstat(dst_dir_fd).st_ino == root.stat().st_ino:  # that was the object, not its label
            if then == "the disk is full":
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
            else:
                drafts.rmdir()

    monkeypatch.setattr(os, "rename", renamed)
    try:
        newer = backend.put("x", b"newer", {"number": "2"}, IfUnchanged(older.etag))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    body, head = backend.get("x")
    assert (body, head.metadata["number"], head.etag) == (b"newer", "2", newer.etag)
    monkeypatch.undo()
    backend.put("x", b"third", {"number": "3"}, IfUnchanged(newer.etag))
    assert backend.get("x")[1].metadata["number"] == "3"
    assert list(backend.unfinished("")) == []


def test_the_commands_of_the_guide_fetch_files_as_they_fetch_objects(
    store: ObjectStore, settings: StoreSettings, tmp_path: Path
) -> None:
    for name in ("manifest.json", "database.dir/toc.dat"):
        store.put_bytes(f"logical/id/{name}", name.encode())
    blocks = restore_guide(store).split("```")
    step = next(block for block in blocks if "ROOT='" in block).removeprefix("sh\n")
    fetch = """
      aws s3 ls "$ROOT/logical/id/" | grep -c manifest.json
      aws s3 cp "$ROOT/logical/id/manifest.json" -
      aws s3 cp --recursive --only-show-errors --exclude 'drill-*' "$ROOT/logical/id/" fetched/id/
      aws s3 cp --only-show-errors "$ROOT/logical/id/manifest.json" one.json
    """
    done = subprocess.run(["sh", "-eu"], input=step + fetch, cwd=tmp_path, text=True, capture_output=True, check=True)  # noqa: S607
    assert done.stdout == "1\nmanifest.json"
    assert (tmp_path / "fetched/id/database.dir/toc.dat").read_text() == "database.dir/toc.dat"
    assert (tmp_path / "one.json").read_text() == "manifest.json"


def test_what_only_a_server_can_do_is_not_claimed(store: ObjectStore) -> None:
    store.put_bytes("x", b"x")
    assert (has_object_lock(store), locked_until(store, "x"), may_delete(store)) == (False, None, None)
    with pytest.raises(StoreError, match="cannot lock"):
        set_legal_hold(store, "x", on=True)


@pytest.mark.parametrize(
    ("number", "code", "said", "transient"),
    [
        (errno.ENOSPC, Code.STORE, "disk of here is full", False),
        (errno.EACCES, Code.STORE_RIGHT_MISSING, "denied access", False),
        (errno.EROFS, Code.STORE_RIGHT_MISSING, "Read-only", False),
        (errno.EIO, Code.STORE, "Input/output", True),
        (errno.ESTALE, Code.STORE, "Stale file handle", True),
        (errno.EFBIG, Code.STORE, "File too large", False),
    ],
)
def test_what_the_operating_system_refuses_is_explained(number: int, code: Code, said: str, transient: bool) -> None:
    with pytest.raises(StoreError, match=said) as failed, failures_explained("here", "a/b"):
        raise OSError(number, os.strerror(number))
    assert (failed.value.code, bool(failed.value.hint)) == (code, True)
    assert failed.value.transient is transient


def test_a_directory_that_is_not_there_is_not_made_but_named(settings: StoreSettings) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        open_store(settings, ENVIRONMENT)
    assert settings.directory is not None
    settings.directory.write_text("a file")
    with pytest.raises(StoreError, match="does not exist"):
        open_store(settings, ENVIRONMENT)


def test_an_empty_mount_point_is_no_empty_store(settings: StoreSettings) -> None:
    assert settings.directory is not None
    settings.directory.mkdir()
    with pytest.raises(StoreError, match="no store") as failed:
        open_store(settings, ENVIRONMENT)
    assert failed.value.code == Code.STORE_ADDRESS
    assert list(settings.directory.iterdir()) == []
    make_place(settings)
    assert list(open_store(settings, ENVIRONMENT).list_objects("")) == []


@pytest.mark.parametrize("is_mount_point", [True, False])
def test_where_a_store_was_made_and_is_away_no_other_is_made(
    settings: StoreSettings, tmp_path: Path, is_mount_point: bool
) -> None:
    settings = settings.model_copy(update={"seen_file": tmp_path / "home/trust/development.seen.json"})
    assert settings.directory is not None
    make_place(settings)
    away = settings.directory.rename(tmp_path / "away")
    if is_mount_point:
        settings.directory.mkdir()
    with pytest.raises(StoreError, match="is not there") as failed:
        make_place(settings)
    assert failed.value.code == Code.STORE_ADDRESS
    assert settings.directory.exists() is is_mount_point
    make_place(settings.model_copy(update={"directory": tmp_path / "elsewhere"}))
    assert read_identity(tmp_path / "elsewhere") not in (None, read_identity(away))
    make_place(settings)
    assert read_identity(settings.directory) is not None


@pytest.mark.parametrize("instead", ["nothing", "an empty directory", "another store"])
def test_a_store_that_is_unmounted_at_work_is_not_taken_for_what_is_there_then(
    store: ObjectStore, settings: StoreSettings, instead: str
) -> None:
    assert settings.directory is not None
    store.put_bytes("a/x", b"there")
    begun = store.backend.upload("a/half")
    away = settings.directory.with_name("away")
    settings.directory.rename(away)
    if instead != "nothing":
        settings.directory.mkdir()
    if instead == "another store":
        make_place(settings)
    before = sorted(settings.directory.rglob("*"))
    verbs: list[Callable[[], object]] = [
        lambda: list(store.list_objects("")),
        lambda: store.list_folders(""),
        lambda: store.backend.head("a/x"),
        lambda: store.get_bytes("a/x"),
        lambda: store.put_bytes("a/y", b"new"),
        lambda: list(store.backend.unfinished("")),
        lambda: store.delete(["a/x"]),
        begun.finish,
    ]
    for verb in verbs:
        with pytest.raises(StoreError) as failed:
            verb()
        assert "no longer the store" in failed.value.message
    begun.abort()
    assert sorted(settings.directory.rglob("*")) == before
    if instead != "nothing":
        settings.directory.rename(settings.directory.with_name("other"))
    away.rename(settings.directory)
    assert store.get_bytes("a/x") == b"there"
    assert [one.key for one in store.list_objects("")] == ["a/x"]


def test_a_store_stays_the_same_when_it_is_made_again(settings: StoreSettings, store: ObjectStore) -> None:
    store.put_bytes("x", b"x")
    make_place(settings)
    assert store.get_bytes("x") == b"x"


def test_a_lock_that_no_directory_has_is_refused_before_anything_is_stored(settings: StoreSettings) -> None:
    make_place(settings)
    retain = Retain.model_validate({"period": "P30D"})
    with pytest.raises(StoreError, match="cannot lock objects"):
        open_store(settings.model_copy(update={"retain": retain}), ENVIRONMENT)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"TMI_OPS_STORE_DIRECTORY": "relative"}, "not an absolute path"),
        ({"TMI_OPS_STORE_DIRECTORY": "/srv", "TMI_OPS_S3_BUCKET": "b"}, "both set"),
    ],
)
def test_a_store_is_in_one_place(variables: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=said):
        load_settings(variables, tmp_path)


def test_the_stack_s_bucket_does_not_join_a_directory(tmp_path: Path) -> None:
    (tmp_path / "stack.env").write_text("TMI_OPS_S3_BUCKET=stack-bucket\n")
    variables = {"TMI_OPS_HOME": str(tmp_path), "TMI_OPS_STORE_DIRECTORY": "/srv/backups"}
    store = load_settings(variables, tmp_path).store
    assert (store.bucket, store.describe()) == (None, "/srv/backups/tmi-ops")
