"""`tmi-ops keys`: what it makes is private, works with the stock programs, and outlives its replacement."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tmi_ops.cli.keys import keys
from tmi_ops.cli.main import main
from tmi_ops.errors import OpsError
from tmi_ops.settings import StoreSettings
from tmi_ops.store.backend import IfAbsent
from tmi_ops.store.keys import after_rotation, key_facts
from tmi_ops.store.minisign import new_secret_key, parse_secret_key
from tmi_ops.store.objects import open_store
from tmi_ops.store.signed import read_document, write_once
from tmi_ops.store.small_objects import get_single
from tmi_ops.store.stamped import check_note, put_note
from tmi_ops.store.trust import TrustedKey, UntrustedError, read_trust
from tmi_ops.wal.stored_file import load, store_once

NOW = datetime(2026, 11, 27, 20, 0, 0, 500, UTC)
AGE = shutil.which("age") or ""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMI_ENV", "staging")
    monkeypatch.setenv("TMI_OPS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(*words: str) -> Result:
    return CliRunner().invoke(keys, list(words), standalone_mode=False)


def settings_of(made: Path, **more: object) -> StoreSettings:
    facts = {"signing_key_file": made / "signing.key", "trusted_keys": (str(made / "trusted.keys"),), **more}
    return StoreSettings(bucket="b", **facts)


def test_keys_are_made_once_and_read_by_nobody_else(home: Path) -> None:
    assert run("init").exit_code == 0
    made = home / "keys"
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in made.iterdir()}
    assert modes == {"age.key": 0o600, "signing.key": 0o600, "recovery-sheet.txt": 0o600, "trusted.keys": 0o644}
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    before = (made / "age.key").read_text()
    again = run("init")
    assert "already contains keys" in str(again.exception)
    assert (made / "age.key").read_text() == before


def test_the_sheet_recovers_what_the_keys_encrypted_and_no_secret_is_printed(home: Path) -> None:
    printed = run("init").output
    sheet = (home / "keys" / "recovery-sheet.txt").read_text()
    secret = next(
        line for line in (home / "keys" / "age.key").read_text().splitlines() if line.startswith("AGE-SECRET")
    )
    assert secret in sheet
    assert "AGE-SECRET" not in printed
    assert "STAGING" in sheet and "minisign -V -P RW" in sheet


@pytest.mark.skipif(not AGE, reason="the age program is not here")
def test_the_stock_age_program_opens_what_is_encrypted_for_them(home: Path) -> None:
    import pyrage

    run("init")
    recipient = read_recipient(home / "keys" / "age.key")
    stored = pyrage.encrypt(b"rows", [pyrage.x25519.Recipient.from_str(recipient)])
    done = subprocess.run(
        [AGE, "--decrypt", "--identity", str(home / "keys" / "age.key")], input=stored, capture_output=True, check=True
    )
    assert done.stdout == b"rows"


def read_recipient(file: Path) -> str:
    return next(line for line in file.read_text().splitlines() if "public key" in line).rpartition(" ")[2]


def test_a_key_for_each_role_signs_what_its_role_may(home: Path) -> None:
    run("init", "--role", "writer", "--role", "prover")
    made = home / "keys"
    writer = read_trust("staging", made / "signing-writer.key", [str(made / "trusted.keys")])
    prover = read_trust("staging", made / "signing-prover.key", [str(made / "trusted.keys")])
    assert (writer.may_sign("backup"), writer.may_sign("proof")) == (True, False)
    assert (prover.may_sign("backup"), prover.may_sign("proof")) == (False, True)


def test_after_a_rotation_old_documents_stay_good_and_the_old_key_signs_nothing_more(
    home: Path, monkeypatch: pytest.MonkeyPatch, store_settings: StoreSettings
) -> None:
    run("init")
    made = home / "keys"
    facts = {"signing_key_file": made / "signing.key", "trusted_keys": (str(made / "trusted.keys"),)}
    settings = store_settings.model_copy(update=facts)
    before = open_store(settings, "staging")
    write_once(before, "restore-points/old.json", b"old", "restore point")
    cluster, name = "7000000000000000001", "00000001000000000000000{}"
    store_once(before, cluster, name.format(5), b"old", None)
    put_note(before, "objectives/2026-11-27.json", b"old", IfAbsent(), "reading")
    reach(monkeypatch, store_settings, made / "signing.key", made / "trusted.keys")
    assert "is the new key" in run("rotate", "signing", "--yes").output

    after = open_store(settings, "staging")
    assert read_document(after, "restore-points/old.json", "restore point") == b"old"
    assert load(after, cluster, name.format(5))[0] == b"old"
    note, head = get_single(after, "objectives/2026-11-27.json")
    check_note(after, "objectives/2026-11-27.json", head.metadata, note, "reading")
    write_once(after, "restore-points/new.json", b"new", "restore point")
    assert read_document(after, "restore-points/new.json", "restore point") == b"new"
    with pytest.raises(UntrustedError):
        read_document(before, "restore-points/new.json", "restore point")
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    thief_s = before.trust.sign("restore-points/forged.json", b"forged", an_hour_ago)
    before.put_bytes("restore-points/forged.json.minisig", thief_s or b"")
    before.put_bytes("restore-points/forged.json", b"forged")
    with pytest.raises(UntrustedError, match="backdated"):
        read_document(after, "restore-points/forged.json", "restore point")
    (record,) = [item.key for item in after.list_objects("keys/")]
    assert f"<={name.format(5)}  wal/{cluster}/00000001\n" in after.get_bytes(record).decode()
    after.put_bytes(record, after.get_bytes(record) + hashlib.sha256(thief_s or b"").hexdigest().encode())
    with pytest.raises(UntrustedError, match="is missing or was altered"):
        read_document(open_store(settings, "staging"), "restore-points/forged.json", "restore point")
    assert run("show").exit_code == 0
    (retired,) = made.glob("signing.key.retired-*")
    assert stat.S_IMODE(retired.stat().st_mode) == 0o600


def test_a_key_is_rotated_without_a_store_only_on_a_persons_word(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = keys_without_a_store(home, monkeypatch)
    before = (made / "signing.key").read_text()
    refused = CliRunner().invoke(keys, ["rotate", "signing", "--yes"])
    assert "--no-record" in str(refused.exception)
    assert (made / "signing.key").read_text() == before
    assert "is the new key" in run("rotate", "signing", "--yes", "--no-record").output


def test_a_rotation_that_cannot_be_finished_loses_neither_key(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = keys_without_a_store(home, monkeypatch)
    before = (made / "signing.key").read_text()

    replace = Path.replace

    def refuse(self: Path, target: Path) -> None:
        if target.name == "signing.key":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        replace(self, target)

    with monkeypatch.context() as full:
        full.setattr(Path, "replace", refuse)
        failed = CliRunner().invoke(keys, ["rotate", "signing", "--yes", "--no-record"]).exception
    assert isinstance(failed, OpsError)
    assert (made / "signing.key").read_text() == before
    assert f"mv {made / 'signing.key.new'} {made / 'signing.key'}" in failed.hint
    successor = parse_secret_key((made / "signing.key.new").read_text(), "here")
    assert successor.public in {one.key for one in read_trust("staging", None, (str(made / "trusted.keys"),)).trusted}

    again = CliRunner().invoke(keys, ["rotate", "signing", "--yes", "--no-record"]).exception
    assert "stopped half-way" in str(again)
    assert parse_secret_key((made / "signing.key.new").read_text(), "here") == successor
    (made / "signing.key.new").unlink()
    again = CliRunner().invoke(keys, ["rotate", "signing", "--yes", "--no-record"]).exception
    assert "is not trusted now" in str(again), "its successor would sign what nobody believes"


def keys_without_a_store(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keys of ours, for a store that does not answer; gives their directory."""
    run("init")
    made = home / "keys"
    nowhere = StoreSettings(bucket="b", endpoint_url="http://127.0.0.1:9")
    reach(monkeypatch, nowhere, made / "signing.key", made / "trusted.keys")
    return made


def reach(monkeypatch: pytest.MonkeyPatch, store: StoreSettings, signing: Path, trusted: Path) -> None:
    """Have commands use this store and these keys."""
    for name, value in {
        "S3_BUCKET": store.bucket,
        "S3_PREFIX": store.prefix,
        "S3_ENDPOINT_URL": store.endpoint_url,
        "S3_ACCESS_KEY_ID": store.access_key_id.get_secret_value() if store.access_key_id else "x",
        "S3_SECRET_ACCESS_KEY": store.secret_access_key.get_secret_value() if store.secret_access_key else "x",
        "SIGNING_KEY_FILE": signing,
        "TRUSTED_KEYS": trusted,
    }.items():
        monkeypatch.setenv(f"TMI_OPS_{name}", str(value))


def test_a_successor_has_its_predecessors_roles_and_ends_are_not_moved() -> None:
    old, new, other = new_secret_key(), new_secret_key(), new_secret_key()
    ended = TrustedKey(other.public, ("writer",), NOW)
    trusted = (TrustedKey(old.public, ("writer",)), ended)
    whole = NOW.replace(microsecond=0)
    assert after_rotation(trusted, old, new, NOW) == (
        TrustedKey(new.public, ("writer",)),
        TrustedKey(old.public, ("writer",), whole),
        ended,
    )


def test_a_new_age_key_opens_new_backups_and_the_old_one_old_ones(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("init")
    file = home / "keys" / "age.key"
    old = read_recipient(file)
    monkeypatch.setenv("TMI_OPS_AGE_IDENTITY_FILE", str(file))
    printed = run("rotate", "age", "--yes").output
    facts = key_facts(StoreSettings(age_identity_file=file), "staging")
    assert facts.identities is not None and facts.identities[0] == old
    assert f"TMI_OPS_AGE_RECIPIENTS={facts.identities[1]}" in printed


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"age_recipients": ("age1somebodyelse",)}, "belongs to none of the recipients"),
        ({"trusted_keys": (new_secret_key().public.text,)}, "is not a trusted key"),
        ({"trusted_keys": ()}, "never checked"),
        ({}, ""),
    ],
    ids=["age", "stranger", "not pinned", "fitting"],
)
def test_keys_that_do_not_fit_together_are_named(home: Path, more: dict[str, object], said: str) -> None:
    run("init")
    made = home / "keys"
    settings = settings_of(made, age_identity_file=made / "age.key", **more)
    problems = key_facts(settings, "staging").problems
    assert said in problems[0] if said else not problems, problems


def test_what_was_there_before_the_keys_is_signed_on_a_persons_word(
    home: Path, monkeypatch: pytest.MonkeyPatch, store_settings: StoreSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    unsigned = open_store(store_settings, "staging")
    write_once(unsigned, "restore-points/old.json", b"old", "restore point")
    write_once(unsigned, "drills/20261127T000000Z-drill-0000.json", b"{}", "proof")
    run("init", "--role", "writer")
    made = home / "keys"
    reach(monkeypatch, store_settings, made / "signing-writer.key", made / "trusted.keys")
    pinned = open_store(
        store_settings.model_copy(
            update={"signing_key_file": made / "signing-writer.key", "trusted_keys": (str(made / "trusted.keys"),)}
        ),
        "staging",
    )
    with pytest.raises(UntrustedError, match="is not signed"):
        read_document(pinned, "restore-points/old.json", "restore point")
    with pytest.raises(SystemExit) as done:
        main(["keys", "sign", "--yes"])
    assert done.value.code == 0
    said = capsys.readouterr().out
    assert "restore-points/old.json: is not signed" in said
    assert "drills/" not in said, "a writer's key signs no proof"
    assert read_document(pinned, "restore-points/old.json", "restore point") == b"old"
