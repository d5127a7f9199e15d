"""Which keys may sign the store's documents: pinned public keys, each with the roles it may sign for. Pure.

A signature binds the content to the environment, to the key of its object and to the time of signing, so that a
document that was moved to another name or another environment is refused although its signature is valid.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from tmi_ops.error_codes import Code
from tmi_ops.errors import SettingsError
from tmi_ops.store.manifest import BrokenRecordError
from tmi_ops.store.minisign import (
    PUBLIC_KEY,
    BadSignatureError,
    PublicKey,
    SecretKey,
    parse_public_key,
    parse_secret_key,
    parse_signature,
    sign,
    verified,
)

Role = Literal["writer", "prover", "pruner"]
Purpose = Literal["backup", "proof", "restore point", "hold", "journal", "guide", "WAL", "reading", "catalogue"]
ROLES: tuple[Role, ...] = ("writer", "prover", "pruner")
# Roles that may sign for each purpose. A stolen writer key cannot call anything verified.
SIGNERS: Mapping[Purpose, tuple[Role, ...]] = {
    "backup": ("writer",),
    "restore point": ("writer",),
    "guide": ("writer",),
    "WAL": ("writer",),
    "proof": ("prover",),
    "hold": ROLES,
    "journal": ROLES,
    "reading": ROLES,
    # It only repeats what others signed, signatures included; every role that changes something writes it.
    "catalogue": ROLES,
}
# How far this machine's clock may lag behind the signer's.
CLOCK_TOLERANCE = timedelta(hours=1)
_WORD = re.compile(
    rf"(?:(?P<role>{'|'.join(ROLES)}):)?(?P<key>{PUBLIC_KEY.pattern})"
    r"(?:@(?P<until>[0-9TZ:+.-]+)(?:#(?P<record>[0-9a-f]{64}))?)?"
)
_SEGMENT = re.compile(
    r"(?P<folder>wal/[^/]+/[0-9A-F]{8})/(?P<name>[0-9A-F]{24})(?:\.partial[^/]*|\.[0-9A-F]{8}\.backup)?\.zst"
)
_COMMENT = re.compile(r"timestamp:(?P<time>\d{1,11}) environment:(?P<environment>\S*) file:(?P<file>.+)")
_KEYS_STEP = (
    "find out who wrote it; if you trust its content, sign it with `tmi-ops keys sign`; list the trusted keys with "
    "`tmi-ops keys show`"
)


class UntrustedError(BrokenRecordError):
    """A document that no trusted key has signed for what it claims to be."""

    default_code = Code.UNTRUSTED


@dataclass(frozen=True)
class TrustedKey:
    """A pinned key. After `until` it signs nothing more; earlier signatures stay valid.

    `record`: the SHA-256 of the record of what it had signed by then (retired.py). If None, a thief can backdate
    signatures.
    """

    key: PublicKey
    roles: tuple[Role, ...] = ROLES
    until: datetime | None = None
    record: str | None = None


@dataclass(frozen=True)
class Record:
    """What a key had signed when it was retired (retired.py).

    `signatures`: the SHA-256 of each. `segments`: by timeline folder, the name of its last WAL segment at that time;
    None for a record of an earlier release, which did not cover WAL.
    """

    signatures: Collection[str]
    segments: Mapping[str, str] | None = None

    def holds(self, name: str, signature: bytes, purpose: Purpose) -> bool:
        """Whether this signature of the object `name` existed by then.

        For a WAL segment: whether the archive had reached it; a segment before the last is bound by the digest that the
        next one has of it.
        """
        if hashlib.sha256(signature).hexdigest() in self.signatures:
            return True
        if purpose != "WAL" or self.segments is None:
            return purpose == "WAL"
        segment = _SEGMENT.fullmatch(name)
        return segment is not None and segment["name"] <= self.segments.get(segment["folder"], "")


def _no_records(digest: str) -> Record:
    raise UntrustedError(f"The record {digest[:16]}... of what a retired key had signed is not available.")


@dataclass(frozen=True)
class Signed:
    """Who signed a document, and when by the signer's clock."""

    key: PublicKey
    at: datetime


@dataclass(frozen=True)
class Trust:
    """The keys of one environment. Without `trusted` nothing is checked; without `signing` nothing is signed.

    `records`: returns the record of a SHA-256.
    """

    environment: str = ""
    signing: SecretKey | None = None
    trusted: tuple[TrustedKey, ...] = ()
    records: Callable[[str], Record] = field(default=_no_records, repr=False, compare=False)

    @property
    def is_pinned(self) -> bool:
        """Whether documents without a trusted signature are refused."""
        return bool(self.trusted)

    def sign(self, name: str, content: bytes, now: datetime | None = None) -> bytes | None:
        """The signature file for the document `name` (its object's key); None without a signing key."""
        if self.signing is None:
            return None
        at = now or datetime.now(UTC)
        return sign(
            self.signing, content, f"timestamp:{int(at.timestamp())} environment:{self.environment} file:{name}"
        )

    def may_sign(self, purpose: Purpose) -> bool:
        """Whether readers who pin the same keys would accept what our key signs now."""
        if self.signing is None:
            return False
        own = [one for one in self.trusted if one.key == self.signing.public and one.until is None]
        return not self.is_pinned or any(set(one.roles) & set(SIGNERS[purpose]) for one in own)

    def check(self, name: str, content: bytes, signature: bytes | None, purpose: Purpose, now: datetime) -> Signed:
        """Check that a key trusted for `purpose` signed this content under this name for this environment.

        Raises:
            UntrustedError: the message says what is wrong.
        """
        if signature is None:
            raise _untrusted(f"{name} is not signed.")
        try:
            parsed = parse_signature(signature, f"The signature of {name}")
            known = [one for one in self.trusted if one.key.key_id == parsed.key_id]
            if not known:
                raise _untrusted(f"{name} is signed by key {parsed.key_name}, which is not trusted here.")
            comment = verified(parsed, known[0].key, content, name)
        except BadSignatureError as error:
            raise _untrusted(error.message) from None
        bound = _COMMENT.fullmatch(comment)
        if bound is None:
            raise _untrusted(f"The signature of {name} does not state its object and time.")
        if bound["environment"] != self.environment:
            raise _untrusted(
                f"{name} was signed for the environment {bound['environment']!r}, not for {self.environment!r}."
            )
        if bound["file"] != name:
            raise _untrusted(f"{name} was signed as {bound['file']!r} and copied from there.")
        at = datetime.fromtimestamp(int(bound["time"]), UTC)
        fitting = _require_allowed(name, known, purpose, at, now)
        recorded = (one.record is None or self.records(one.record).holds(name, signature, purpose) for one in fitting)
        if not any(recorded):
            raise _untrusted(
                f"{name} is signed by key {known[0].key.name}, which had not signed this when it was retired: the "
                "signature was backdated."
            )
        return Signed(known[0].key, at)

    def stamp(self, name: str, content: bytes) -> str | None:
        """A signature in one line, for an object's metadata; None without a signing key."""
        signature = self.sign(name, content)
        return None if signature is None else "|".join(signature.decode().rstrip("\n").split("\n")[1:])

    def check_stamp(self, name: str, content: bytes, stamp: str | None, purpose: Purpose, now: datetime) -> Signed:
        """As `check`, for what `stamp` returned.

        Raises:
            UntrustedError: the message says what is wrong.
        """
        return self.check(name, content, None if stamp is None else signature_of(stamp), purpose, now)


def last_segments(keys: Iterable[str]) -> dict[str, str]:
    """By timeline folder, the name of the last WAL segment among these object keys."""
    found: dict[str, str] = {}
    for key in keys:
        if (segment := _SEGMENT.fullmatch(key)) is not None:
            found[segment["folder"]] = max(segment["name"], found.get(segment["folder"], ""))
    return found


def signature_of(stamp: str) -> bytes:
    """The signature file that `Trust.stamp` put into one line."""
    return "\n".join(["untrusted comment: from metadata", *stamp.split("|"), ""]).encode()


def read_trust(environment: str, signing_key_file: Path | None, trusted: Sequence[str]) -> Trust:
    """Read the keys that the settings name.

    Args:
        trusted: public keys in the format of `trusted_keys`, and files with such keys.

    Raises:
        SettingsError: a file cannot be read, or contains something that is not a key.
    """
    signing = None
    if signing_key_file is not None:
        signing = parse_secret_key(_read(signing_key_file, "TMI_OPS_SIGNING_KEY_FILE"), str(signing_key_file))
    keys: list[TrustedKey] = []
    for word in trusted:
        text = word if _WORD.fullmatch(word) else _read(Path(word), "TMI_OPS_TRUSTED_KEYS")
        found = trusted_keys(text)
        if not found:
            raise SettingsError(
                f"{word} contains no public key.", hint="add the public keys that `tmi-ops keys show` prints"
            )
        keys += found
    return Trust(environment, signing, tuple(keys))


def trusted_keys(text: str) -> list[TrustedKey]:
    """Parse public keys, one per word or line: `[role:]RW...[@until[#record]]`.

    Lines that begin with `#` or `untrusted comment:` are comments. `role` is writer, prover or pruner, by default all;
    `until` is when the key was retired; `record` is the SHA-256 of the record of what it had signed.

    Raises:
        SettingsError: a word has another format.
    """
    lines = [line for line in text.splitlines() if not line.startswith(("#", "untrusted comment:"))]
    return [_trusted_key(word) for line in lines for word in line.replace(",", " ").split()]


def trusted_entry(trusted: TrustedKey) -> str:
    """A pinned key in the format of `trusted_keys`."""
    role = "" if trusted.roles == ROLES else f"{trusted.roles[0]}:"
    until = f"@{trusted.until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if trusted.until else ""
    record = f"#{trusted.record}" if until and trusted.record else ""
    return f"{role}{trusted.key.text}{until}{record}"


def _trusted_key(word: str) -> TrustedKey:
    match = _WORD.fullmatch(word)
    step = "write each as [writer:|prover:|pruner:]RW...[@2026-11-27T00:00:00Z[#record]]"
    if match is None:
        raise SettingsError(f"TMI_OPS_TRUSTED_KEYS: {word[:20]!r} is not a public key.", hint=step)
    until = None
    if match["until"]:
        try:
            until = datetime.fromisoformat(match["until"])
        except ValueError:
            until = None
        if until is None or until.tzinfo is None:
            raise SettingsError(f"The end of a trusted key is not a time with a zone: {match['until']!r}.", hint=step)
    roles: tuple[Role, ...] = tuple(role for role in ROLES if match["role"] in (None, role))
    return TrustedKey(parse_public_key(match["key"]), roles, until, match["record"])


def _require_allowed(
    name: str, known: Sequence[TrustedKey], purpose: Purpose, at: datetime, now: datetime
) -> list[TrustedKey]:
    """The pinned words that allow it: one key may be pinned several times, once per role."""
    if at > now + CLOCK_TOLERANCE:
        raise _untrusted(
            f"{name} was signed in the future, at {at:%Y-%m-%d %H:%M} UTC; this machine's clock says "
            f"{now:%Y-%m-%d %H:%M}."
        )
    fitting = [one for one in known if set(one.roles) & set(SIGNERS[purpose])]
    if not fitting:
        roles = " and ".join(sorted({role for one in known for role in one.roles}))
        raise _untrusted(f"{name} is signed by a {roles} key, which may not sign a {purpose}.")
    in_time = [one for one in fitting if one.until is None or at <= one.until]
    if not in_time:
        raise _untrusted(
            f"{name} was signed at {at:%Y-%m-%d %H:%M} UTC by key {known[0].key.name}, which was retired before."
        )
    return in_time


def _untrusted(what: str) -> UntrustedError:
    return UntrustedError(what, detail="It was not used and not changed.", hint=_KEYS_STEP)


def _read(file: Path, variable: str) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise SettingsError(
            f"{variable}: {file} cannot be read: {reason}.", hint="create the keys: `tmi-ops keys init`"
        ) from None
