"""Signatures: what the standard program made is verified, what we make it verifies, and nothing else passes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tmi_ops.errors import SettingsError
from tmi_ops.store.minisign import (
    BadSignatureError,
    new_secret_key,
    parse_public_key,
    parse_secret_key,
    parse_signature,
    public_key_file,
    secret_key_file,
    sign,
    verified,
)

# Made by minisign 0.11: `minisign -G -W`, `minisign -S -t COMMENT`, and with -l a signature of the old kind.
PUBLIC = "RWTQ/2bFxY1atK9Ma45KzylUn9CRbm0jGZ4MQ7QmBJGJ+OdeEhIzuWbS"
SECRET = (
    "untrusted comment: minisign encrypted secret key\n"
    "RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA0P9mxcWNWrQGqtmCvacGT2nMO9/btx1eB1Y8MlaIHGQd"
    "MBBs7FSgZa9Ma45KzylUn9CRbm0jGZ4MQ7QmBJGJ+OdeEhIzuWbSAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
)
CONTENT = b'{"backup": 1}\n'
COMMENT = "timestamp:1764275000 environment:production file:base/x/manifest.json"
SIGNATURE = f"""untrusted comment: signature from minisign secret key
RUTQ/2bFxY1atHuUnm0jRnZ0LK4aznj4rihsSUN+1fhp4brxzOAghfVn2PUdbA3Nq/h0cwzfq/M2M0GeeFo2BPvFa3fczXtYFgw=
trusted comment: {COMMENT}
266Gh/Nc42V2JmxQ0g6WQS9x2IX+7yAdyO7fTeVjRsct4ITtCsKktFJy4LBIukb2gJDS/Uw1LP5Kuz4wPNOSDw==
"""
OLD_KIND = """untrusted comment: signature from minisign secret key
RWTQ/2bFxY1atCm+QllSb1sBkps0nQMiMv3iAhhkyakAHMHF4/C/Z7fVvNuTLkTdaI2SoRwEaWh/9XeAXZrEX5qrye3wdi+EZgY=
trusted comment: timestamp:1795811655\tfile:manifest.json
bznCBk7YnlbeQR1/Zs9HRQjQlq6wZA7osK0vvnnFFUZI7yC6isahgiWveIzzRVBnqulg9q+WWHmX1zk7FlVbAw==
"""
MINISIGN = shutil.which("minisign") or ""
needs_minisign = pytest.mark.skipif(not MINISIGN, reason="the minisign program is not here")


def test_what_minisign_signed_is_verified() -> None:
    signature = parse_signature(SIGNATURE.encode(), "it")
    assert verified(signature, parse_public_key(PUBLIC), CONTENT, "it") == COMMENT
    assert signature.key_name == "B45A8DC5C566FFD0", "as minisign prints it"


def test_with_minisigns_key_we_sign_as_it_does() -> None:
    ours = sign(parse_secret_key(SECRET, "key"), CONTENT, COMMENT).decode()
    assert ours.splitlines()[1:] == SIGNATURE.splitlines()[1:], "Ed25519 is deterministic"
    assert parse_secret_key(SECRET, "key").public.text == PUBLIC


@pytest.mark.parametrize(
    ("signature", "content"),
    [
        (SIGNATURE, CONTENT + b"x"),
        (SIGNATURE.replace("environment:production", "environment:staging"), CONTENT),
        (SIGNATURE.replace("HuUnm", "HuUnn"), CONTENT),
        (SIGNATURE.replace("266Gh", "266Gi"), CONTENT),
    ],
    ids=["content", "trusted comment", "signature", "global signature"],
)
def test_whatever_was_altered_is_noticed(signature: str, content: bytes) -> None:
    with pytest.raises(BadSignatureError, match="was altered"):
        verified(parse_signature(signature.encode(), "it"), parse_public_key(PUBLIC), content, "it")


@pytest.mark.parametrize(
    "text", ["", "x", OLD_KIND, SIGNATURE.replace("trusted comment", "comment"), SIGNATURE * 2, "\xff" * 5000]
)
def test_what_is_no_signature_is_refused(text: str) -> None:
    with pytest.raises(BadSignatureError, match="not a signature"):
        parse_signature(text.encode(), "it")


def test_another_key_verifies_nothing() -> None:
    with pytest.raises(BadSignatureError):
        verified(parse_signature(SIGNATURE.encode(), "it"), new_secret_key().public, CONTENT, "it")


def test_a_secret_key_comes_back_from_its_file_and_never_shows() -> None:
    key = new_secret_key()
    assert parse_secret_key(secret_key_file(key, "of tests"), "key") == key
    assert str(key.seed) not in repr(key)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("RWQAAEIy", "no secret minisign key"),
        ("", "no secret minisign key"),
        (SECRET.replace("RWQAAEIy", "RWRTY0Iy"), "has a password"),
        (SECRET.replace("GqtmCva", "GqtmCvb"), "damaged"),
    ],
)
def test_what_is_no_usable_secret_key_is_refused_without_quoting_it(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        parse_secret_key(text, "/keys/signing.key")
    assert "AAAA" not in str(refused.value)


@needs_minisign
def test_the_standard_program_verifies_ours_and_signs_with_our_key(tmp_path: Path) -> None:
    key = new_secret_key()
    (tmp_path / "doc").write_bytes(CONTENT)
    (tmp_path / "doc.minisig").write_bytes(sign(key, CONTENT, COMMENT))
    (tmp_path / "key").write_text(secret_key_file(key, "of tests"))
    (tmp_path / "pub").write_text(public_key_file(key.public, "of tests"))

    def minisign(*words: str) -> str:
        done = subprocess.run([MINISIGN, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    assert f"Trusted comment: {COMMENT}" in minisign("-V", "-m", "doc", "-p", "pub")
    minisign("-S", "-s", "key", "-m", "doc", "-x", "theirs", "-t", "by the program")
    theirs = parse_signature((tmp_path / "theirs").read_bytes(), "theirs")
    assert verified(theirs, key.public, CONTENT, "theirs") == "by the program"
