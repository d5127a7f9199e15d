"""Who is believed: the key, its role, its time, the environment, the object's name. Without a server."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tmi_ops.errors import SettingsError
from tmi_ops.store.minisign import new_secret_key, secret_key_file
from tmi_ops.store.trust import (
    ROLES,
    Purpose,
    Record,
    Role,
    Trust,
    TrustedKey,
    UntrustedError,
    last_segments,
    read_trust,
    trusted_entry,
    trusted_keys,
)

NOW = datetime(2026, 11, 27, 20, 0, tzinfo=UTC)
# After what these tests sign themselves, at the time of day.
TOMORROW = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
KEY, OTHER = new_secret_key(), new_secret_key()
NAME, CONTENT = "base/20261127T190000Z-base-0000/manifest.json", b"{}"


def trusting(*trusted: TrustedKey, environment: str = "production") -> Trust:
    return Trust(environment, KEY, trusted)


def checked(trust: Trust, purpose: Purpose = "backup", *, name: str = NAME, content: bytes = CONTENT) -> None:
    signed = trusting().sign(NAME, CONTENT, NOW)
    found = trust.check(name, content, signed, purpose, NOW)
    assert (found.key, found.at) == (KEY.public, NOW)


def test_what_a_trusted_key_signed_is_believed() -> None:
    checked(trusting(TrustedKey(KEY.public)))


@pytest.mark.parametrize(
    ("trust", "name", "content", "said"),
    [
        (trusting(TrustedKey(OTHER.public)), NAME, CONTENT, "not trusted here"),
        (trusting(TrustedKey(KEY.public), environment="staging"), NAME, CONTENT, "for the environment 'production'"),
        (trusting(TrustedKey(KEY.public)), NAME.replace("0000/", "1111/"), CONTENT, "copied from there"),
        (trusting(TrustedKey(KEY.public)), NAME, b"{ }", "was altered"),
        (trusting(TrustedKey(KEY.public, until=NOW - timedelta(seconds=1))), NAME, CONTENT, "retired before"),
    ],
    ids=["a stranger's key", "another environment", "another name", "another content", "after its retirement"],
)
def test_what_was_signed_otherwise_is_refused(trust: Trust, name: str, content: bytes, said: str) -> None:
    with pytest.raises(UntrustedError, match=said):
        checked(trust, name=name, content=content)


def test_what_is_unsigned_is_refused_and_named() -> None:
    with pytest.raises(UntrustedError, match=f"{NAME} is not signed"):
        trusting(TrustedKey(KEY.public)).check(NAME, CONTENT, None, "backup", NOW)


def test_what_was_signed_in_the_future_is_refused_but_for_a_clock_that_lags() -> None:
    trust = trusting(TrustedKey(KEY.public))
    with pytest.raises(UntrustedError, match="in the future"):
        trust.check(NAME, CONTENT, trust.sign(NAME, CONTENT, NOW + timedelta(minutes=61)), "backup", NOW)
    trust.check(NAME, CONTENT, trust.sign(NAME, CONTENT, NOW + timedelta(minutes=59)), "backup", NOW)


ALLOWED: dict[Role, set[Purpose]] = {
    "writer": {"backup", "restore point", "guide", "WAL", "hold", "journal", "reading"},
    "prover": {"proof", "hold", "journal", "reading"},
    "pruner": {"hold", "journal", "reading"},
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("purpose", ["backup", "restore point", "guide", "WAL", "hold", "journal", "proof", "reading"])
def test_a_key_signs_what_its_role_may_and_nothing_else(role: Role, purpose: Purpose) -> None:
    """Above all: a stolen writer key calls nothing proven, and a stolen prover key makes no backup."""
    trust = trusting(TrustedKey(KEY.public, (role,)))
    if purpose in ALLOWED[role]:
        checked(trust, purpose)
    else:
        with pytest.raises(UntrustedError, match=f"{role} key, which may not sign a {purpose}"):
            checked(trust, purpose)


def test_a_key_pinned_for_two_roles_may_what_both_may() -> None:
    trust = trusting(TrustedKey(KEY.public, ("writer",)), TrustedKey(KEY.public, ("prover",)))
    checked(trust, "backup")
    checked(trust, "proof")


def test_after_a_rotation_the_old_key_is_trusted_for_what_it_signed() -> None:
    trust = trusting(TrustedKey(OTHER.public), TrustedKey(KEY.public, until=NOW))
    checked(trust)
    with pytest.raises(UntrustedError, match="retired before"):
        trust.check(NAME, CONTENT, trust.sign(NAME, CONTENT, NOW + timedelta(seconds=1)), "backup", NOW)


def test_what_a_retired_key_had_not_signed_by_then_is_refused_however_it_is_dated() -> None:
    known = hashlib.sha256(trusting().sign(NAME, CONTENT, NOW) or b"").hexdigest()
    records = {"0" * 64: Record({known})}
    retired = TrustedKey(KEY.public, until=TOMORROW, record="0" * 64)
    trust = replace(trusting(TrustedKey(OTHER.public), retired), records=records.__getitem__)
    checked(trust)
    for other, content in ((NAME, b"{ }"), (NAME.replace("0000/", "1111/"), CONTENT)):
        with pytest.raises(UntrustedError, match="backdated"):
            trust.check(other, content, trust.sign(other, content, NOW), "backup", NOW)
    checked(replace(trust, trusted=(*trust.trusted, TrustedKey(KEY.public, ("writer",)))))
    with pytest.raises(UntrustedError, match="not available"):
        checked(trusting(retired))
    trust.check_stamp(NAME, CONTENT, trust.stamp(NAME, CONTENT), "WAL", datetime.now(UTC))  # of an earlier release
    assert trusted_keys(trusted_entry(retired)) == [retired]


FOLDER = "wal/7000000000000000001/00000001"


@pytest.mark.parametrize(
    ("name", "believed"),
    [
        (f"{FOLDER}/000000010000000000000004.zst", True),
        (f"{FOLDER}/000000010000000000000005.zst", True),
        (f"{FOLDER}/000000010000000000000005.partial.zst", True),
        (f"{FOLDER}/000000010000000000000005.partial.0000A000.zst", True),
        (f"{FOLDER}/000000010000000000000006.partial.00000000-0000A000.zst", False),
        (f"{FOLDER}/000000010000000000000006.zst", False),
        (f"{FOLDER}/000000010000000000000006.partial.zst", False),
        ("wal/7000000000000000001/00000002/000000020000000000000004.zst", False),
        ("wal/7000000000000000002/00000001/000000010000000000000004.zst", False),
        ("wal/7000000000000000001/00000002.history.zst", False),
        ("wal/7000000000000000001/lease.json", False),
    ],
)
def test_whoever_stole_a_retired_key_adds_no_wal_behind_what_was_archived_then(name: str, *, believed: bool) -> None:
    keys = [f"{FOLDER}/00000001000000000000000{number}.zst" for number in (3, 5, 4)]
    assert last_segments([*keys, NAME]) == {FOLDER: "000000010000000000000005"}
    retired = TrustedKey(KEY.public, until=TOMORROW, record="0" * 64)
    records = {"0" * 64: Record(frozenset(), last_segments(keys))}
    trust = replace(trusting(TrustedKey(OTHER.public), retired), records=records.__getitem__)
    with contextlib.nullcontext() if believed else pytest.raises(UntrustedError, match="backdated"):
        trust.check_stamp(name, CONTENT, trust.stamp(name, CONTENT), "WAL", TOMORROW)


def test_a_signature_in_one_line_is_the_same_one() -> None:
    trust = trusting(TrustedKey(KEY.public))
    stamp = trust.stamp(NAME, CONTENT)
    assert stamp is not None and stamp.isascii() and "\n" not in stamp and len(stamp) < 500
    assert trust.check_stamp(NAME, CONTENT, stamp, "WAL", datetime.now(UTC)).key == KEY.public
    for wrong in (None, "", stamp[:-9], stamp.replace("production", "staging")):
        with pytest.raises(UntrustedError):
            trust.check_stamp(NAME, CONTENT, wrong, "WAL", datetime.now(UTC))


def test_keys_are_read_from_words_and_files(tmp_path: Path) -> None:
    file = tmp_path / "trusted.keys"
    file.write_text(
        f"# ours\nuntrusted comment: minisign public key\nwriter:{KEY.public.text}@2026-11-27T20:00:00Z\n"
        f"prover:{OTHER.public.text}\n"
    )
    (tmp_path / "signing.key").write_text(secret_key_file(KEY, "of tests"))
    trust = read_trust("production", tmp_path / "signing.key", [str(file), OTHER.public.text])
    assert trust.signing == KEY
    assert trust.trusted == (
        TrustedKey(KEY.public, ("writer",), NOW),
        TrustedKey(OTHER.public, ("prover",)),
        TrustedKey(OTHER.public),
    )
    assert trusted_keys("\n".join(map(trusted_entry, trust.trusted))) == list(trust.trusted)


@pytest.mark.parametrize(
    "word",
    ["RWshort", f"reader:{KEY.public.text}", f"{KEY.public.text}@yesterday", f"{KEY.public.text}@2026-11-27"],
    ids=["short", "role", "no time", "no zone"],
)
def test_a_word_that_is_no_key_is_refused(word: str) -> None:
    with pytest.raises(SettingsError):
        trusted_keys(word)


def test_a_file_of_keys_that_is_missing_or_empty_trusts_nobody_silently(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read_trust("production", None, [str(tmp_path / "gone")])
    (tmp_path / "empty").write_text("# none yet\n")
    with pytest.raises(SettingsError, match="contains no public key"):
        read_trust("production", None, [str(tmp_path / "empty")])
