"""Ed25519 signatures in minisign's file format, so that the standard program can check them without tmi_ops. Pure.

A signature file has four lines: an untrusted comment; in base64, `ED`, the key id and the signature of the content's
BLAKE2b-512; a trusted comment; in base64, the signature of the first signature and the trusted comment together.
Source: https://jedisct1.github.io/minisign/ (Signature format, Public key format, Secret key format).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tmi_ops.error_codes import Code
from tmi_ops.errors import SettingsError, StoreError

PUBLIC_KEY = re.compile(r"RW[A-Za-z0-9+/]{54}")
LONGEST_SIGNATURE = 4096  # bytes of a signature file
_KEY_ALGORITHM = b"Ed"
_PREHASHED = b"ED"
_NO_KDF = b"\0\0"
_CHECKSUM_ALGORITHM = b"B2"
_ID_BYTES = 8
_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_SIGNATURE_LINES = 4
_SECRET_HEADER = len(_KEY_ALGORITHM + _NO_KDF + _CHECKSUM_ALGORITHM) + 32 + 8 + 8
_UNTRUSTED = "untrusted comment: "
_TRUSTED = "trusted comment: "
_MINISIGN_STEP = "create one with `tmi-ops keys init`, or with `minisign -G -W`"


class BadSignatureError(StoreError):
    """A signature is malformed, or not a signature of this content by this key."""

    default_code = Code.BAD_SIGNATURE


@dataclass(frozen=True)
class PublicKey:
    """`key_id` 8 bytes, `key` 32 bytes."""

    key_id: bytes
    key: bytes

    @property
    def text(self) -> str:
        """The format of `minisign -P`: 56 characters that begin with RW."""
        return base64.b64encode(_KEY_ALGORITHM + self.key_id + self.key).decode()

    @property
    def name(self) -> str:
        """The key id as minisign prints it in comments."""
        return _format_id(self.key_id)


@dataclass(frozen=True)
class SecretKey:
    """An Ed25519 key with minisign's id. `seed` 32 bytes."""

    key_id: bytes
    seed: bytes = field(repr=False)

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.key_id, self._private.public_key().public_bytes_raw())

    @property
    def _private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    def raw_signature(self, data: bytes) -> bytes:
        """64 bytes."""
        return self._private.sign(data)


@dataclass(frozen=True)
class Signature:
    """The content of a signature file; do not trust any of it before `verified`."""

    key_id: bytes
    signature: bytes
    trusted_comment: str
    global_signature: bytes

    @property
    def key_name(self) -> str:
        return _format_id(self.key_id)


def new_secret_key() -> SecretKey:
    return SecretKey(secrets.token_bytes(_ID_BYTES), secrets.token_bytes(_KEY_BYTES))


def sign(key: SecretKey, content: bytes, trusted_comment: str) -> bytes:
    """The signature file of `content`. The trusted comment is one line, and is signed too."""
    if not trusted_comment.replace("\t", " ").isprintable():
        raise AssertionError
    signature = key.raw_signature(_prehash(content))
    whole = key.raw_signature(signature + trusted_comment.encode())
    return (
        f"{_UNTRUSTED}signature from tmi_ops, key {key.public.name}\n"
        f"{base64.b64encode(_PREHASHED + key.key_id + signature).decode()}\n"
        f"{_TRUSTED}{trusted_comment}\n"
        f"{base64.b64encode(whole).decode()}\n"
    ).encode()


def parse_signature(data: bytes, where: str) -> Signature:
    """Parse a signature file; `where` names it in messages.

    Raises:
        BadSignatureError: it is not one, or has minisign's old format without prehashing.
    """
    malformed = BadSignatureError(f"{where} is not a signature in minisign's format.")
    lines = data.decode(errors="replace").rstrip("\n").split("\n")
    if len(data) > LONGEST_SIGNATURE or len(lines) != _SIGNATURE_LINES or not lines[2].startswith(_TRUSTED):
        raise malformed
    body, comment, whole = _decoded(lines[1]), lines[2], _decoded(lines[3])
    whole_length = len(_PREHASHED) + _ID_BYTES + _SIGNATURE_BYTES
    if body[:2] != _PREHASHED or len(body) != whole_length or len(whole) != _SIGNATURE_BYTES:
        raise malformed
    return Signature(body[2 : 2 + _ID_BYTES], body[2 + _ID_BYTES :], comment.removeprefix(_TRUSTED), whole)


def verified(signature: Signature, key: PublicKey, content: bytes, where: str) -> str:
    """Verify that this is a signature of this content by this key, and return its trusted comment.

    Raises:
        BadSignatureError: it is not.
    """
    public = Ed25519PublicKey.from_public_bytes(key.key)
    try:
        public.verify(signature.signature, _prehash(content))
        public.verify(signature.global_signature, signature.signature + signature.trusted_comment.encode())
    except InvalidSignature:
        raise BadSignatureError(f"{where} is not what key {key.name} signed: it was altered.") from None
    return signature.trusted_comment


def parse_public_key(text: str) -> PublicKey:
    """Parse a public key as minisign writes it (`RW...`).

    Raises:
        SettingsError: it is not one.
    """
    if PUBLIC_KEY.fullmatch(text) is None:
        raise SettingsError(f"{text[:12]!r}... is not a public minisign key.", hint="give a key that begins with RW")
    body = base64.b64decode(text)
    return PublicKey(body[2 : 2 + _ID_BYTES], body[2 + _ID_BYTES :])


def parse_secret_key(text: str, where: str) -> SecretKey:
    """Parse minisign's secret key file without a password.

    Raises:
        SettingsError: it is not one, or has a password. The message never quotes it.
    """
    lines = [line for line in text.splitlines() if line and not line.startswith((_UNTRUSTED, "#"))]
    body = _decoded(lines[0]) if lines else b""
    if body[:2] != _KEY_ALGORITHM or len(body) < _SECRET_HEADER + _ID_BYTES + 2 * _KEY_BYTES:
        raise SettingsError(
            f"The signing key file {where} contains no secret minisign key.",
            hint=_MINISIGN_STEP,
            code=Code.SIGNING_KEY,
        )
    if body[2:4] != _NO_KDF:
        raise SettingsError(
            f"The signing key {where} has a password, which tmi_ops cannot ask for.",
            hint=f"remove the password: `minisign -C -W -s {where}`",
            code=Code.SIGNING_KEY,
        )
    secret = body[_SECRET_HEADER:]
    key = SecretKey(secret[:_ID_BYTES], secret[_ID_BYTES : _ID_BYTES + _KEY_BYTES])
    if key.public.key != secret[_ID_BYTES + _KEY_BYTES : _ID_BYTES + 2 * _KEY_BYTES]:
        raise SettingsError(
            f"The signing key {where} is damaged.",
            hint="restore the file from a copy, or create new keys: `tmi-ops keys init --directory DIRECTORY`",
            code=Code.SIGNING_KEY,
        )
    return key


def secret_key_file(key: SecretKey, comment: str) -> str:
    """The file format of a minisign secret key without a password."""
    header = _KEY_ALGORITHM + _NO_KDF + _CHECKSUM_ALGORITHM
    body = header.ljust(_SECRET_HEADER, b"\0") + key.key_id + key.seed + key.public.key + bytes(_KEY_BYTES)
    return f"{_UNTRUSTED}{comment}\n{base64.b64encode(body).decode()}\n"


def public_key_file(key: PublicKey, comment: str) -> str:
    """The file format of `minisign -p`."""
    return f"{_UNTRUSTED}{comment}\n{key.text}\n"


def _decoded(text: str) -> bytes:
    """The bytes of base64 text; empty if it is invalid."""
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return b""


def _prehash(content: bytes) -> bytes:
    return hashlib.blake2b(content).digest()


def _format_id(key_id: bytes) -> str:
    return f"{int.from_bytes(key_id, 'little'):016X}"
