"""Key files of age and minisign: created, and rotated so that what was made with the old keys stays valid."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tmi_ops.error_codes import Code
from tmi_ops.errors import OpsError, SettingsError
from tmi_ops.private import make_directory, write_durably, write_private
from tmi_ops.settings import StoreSettings
from tmi_ops.store.encryption import read_identities
from tmi_ops.store.minisign import PublicKey, SecretKey, new_secret_key, secret_key_file
from tmi_ops.store.trust import ROLES, Role, Trust, TrustedKey, read_trust, trusted_entry, trusted_keys

AGE_FILE = "age.key"
TRUSTED_FILE = "trusted.keys"
SHEET_FILE = "recovery-sheet.txt"


@dataclass(frozen=True)
class MadeKeys:
    """What `make_keys` wrote. `recipient` is age's public key; `signing` pairs roles with their secret key's file."""

    directory: Path
    recipient: str
    identity_file: Path
    signing: tuple[tuple[tuple[Role, ...], Path], ...]
    trusted_file: Path
    trusted: tuple[TrustedKey, ...]


@dataclass(frozen=True)
class Rotated:
    """A rotated signing key. `trusted_file` is None if the setting itself lists the trusted keys."""

    file: Path
    retired_file: Path
    trusted: tuple[TrustedKey, ...]
    trusted_file: Path | None


@dataclass(frozen=True)
class KeyFacts:
    """The keys that the settings name, public halves only. `identities` is None if this host has no private age key."""

    recipients: tuple[str, ...]
    identities: tuple[str, ...] | None
    signing: PublicKey | None
    trusted: tuple[TrustedKey, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """Contradictions between the keys, one sentence each."""
        found = []
        if self.identities and self.recipients and not set(self.identities) & set(self.recipients):
            found.append("The private age key belongs to none of the recipients: this machine cannot read new backups.")
        own = [one for one in self.trusted if self.signing == one.key]
        if self.signing and self.trusted and not own:
            found.append("The signing key is not a trusted key: what it signs is rejected.")
        if own and all(one.until for one in own):
            found.append("The signing key is retired: what it signs now is refused.")
        if self.signing and not self.trusted:
            found.append("TMI_OPS_TRUSTED_KEYS is not set: signatures are made but never checked.")
        return tuple(found)

    def lines(self) -> list[str]:
        """The lines to print."""
        private = "no key here" if self.identities is None else ", ".join(self.identities) or "an OpenSSH key"
        return [
            f"encrypts for  {', '.join(self.recipients) or 'nobody: backups are not encrypted'}",
            f"decrypts as   {private}",
            f"signs as      {self.signing.text if self.signing else 'no key: documents are not signed'}",
            *(f"trusts        {trusted_entry(one)}" for one in self.trusted),
            *(() if self.trusted else ("trusts        any key: signatures are not checked",)),
            *self.problems,
        ]

    def as_json(self) -> dict[str, object]:
        """The same as JSON values."""
        return {
            "recipients": list(self.recipients),
            "identities": None if self.identities is None else list(self.identities),
            "signing": self.signing.text if self.signing else None,
            "trusted": [trusted_entry(one) for one in self.trusted],
            "problems": list(self.problems),
        }


def key_facts(settings: StoreSettings, environment: str) -> KeyFacts:
    """Read the keys that the settings name.

    Raises:
        OpsError: a key cannot be read.
    """
    trust = read_trust(environment, settings.signing_key_file, settings.trusted_keys)
    file = settings.age_identity_file
    return KeyFacts(
        recipients=settings.age_recipients,
        identities=None if file is None else public_keys_of(read_identities(file)),
        signing=trust.signing.public if trust.signing else None,
        trusted=trust.trusted,
    )


def make_keys(directory: Path, environment: str, roles: Sequence[Role], now: datetime) -> MadeKeys:
    """Create an age key pair, and one minisign key per role, or without roles a single one for all of them.

    Raises:
        OpsError: the directory already holds keys, or cannot be written; nothing was replaced.
    """
    import pyrage

    plans: list[tuple[tuple[Role, ...], Path]] = [((role,), directory / f"signing-{role}.key") for role in roles]
    plans = plans or [(ROLES, directory / "signing.key")]
    files = [directory / AGE_FILE, directory / TRUSTED_FILE, *(file for _, file in plans)]
    there = [file for file in files if file.exists()]
    if there:
        raise OpsError(
            f"{directory} already contains keys: {', '.join(file.name for file in there)}.",
            detail="They were not changed.",
            hint="use them, replace them (`tmi-ops keys rotate`), or choose another --directory",
        )
    identity = pyrage.x25519.Identity.generate()
    made = f"{environment}, made by tmi-ops {now.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    trusted: list[TrustedKey] = []
    try:
        make_directory(directory)
        write_private(directory / AGE_FILE, f"# {made}\n# public key: {identity.to_public()}\n{identity}\n")
        for held, file in plans:
            key = new_secret_key()
            write_private(file, secret_key_file(key, f"secret key of the {'+'.join(held)} of {made}"))
            trusted.append(TrustedKey(key.public, held))
        write_durably(directory / TRUSTED_FILE, trusted_file_text(environment, trusted).encode(), mode=0o644)
    except OSError as error:
        raise OpsError(
            f"The keys could not be written to {directory}: {error.strerror}.", hint="choose another --directory"
        ) from None
    return MadeKeys(
        directory,
        str(identity.to_public()),
        directory / AGE_FILE,
        tuple(plans),
        directory / TRUSTED_FILE,
        tuple(trusted),
    )


def kept_keys(directory: Path) -> MadeKeys | None:
    """The keys that `make_keys` wrote into a directory with one key for all roles; None if a file is missing.

    Raises:
        OpsError: a file cannot be read.
    """
    age, signing, trusted = directory / AGE_FILE, directory / "signing.key", directory / TRUSTED_FILE
    if not all(file.exists() for file in (age, signing, trusted)):
        return None
    words = read_trust("", signing, (str(trusted),)).trusted
    recipient = public_keys_of(read_identities(age))[-1]
    return MadeKeys(directory, recipient, age, ((ROLES, signing),), trusted, words)


def rotate_signing_key(
    file: Path, trust: Trust, words: Sequence[str], now: datetime, record: str | None = None
) -> Rotated:
    """Replace the signing key. The old one is kept beside the new one and signs nothing more.

    If TMI_OPS_TRUSTED_KEYS names one file, both keys are written there, the old one with its end.

    Args:
        words: the value of TMI_OPS_TRUSTED_KEYS.
        record: the SHA-256 of the record of what the old key has signed (retired.py).

    Raises:
        SettingsError: there is no signing key, it is not trusted now, or a rotation stopped half-way.
        OpsError: a file could not be written; the message says which keys are where.
    """
    old = trust.signing
    if old is None:
        raise SettingsError(
            "There is no signing key to replace.", hint="create one: `tmi-ops keys init`", code=Code.SIGNING_KEY
        )
    successor = file.with_name(f"{file.name}.new")
    if successor.exists():
        raise SettingsError(
            f"A rotation stopped half-way: {successor} is its new key.",
            hint=f"if TMI_OPS_TRUSTED_KEYS names that key: mv {successor} {file}; otherwise remove it and rotate again",
            code=Code.SIGNING_KEY,
        )
    if trust.trusted and not any(one.key == old.public and one.until is None for one in trust.trusted):
        raise SettingsError(
            f"The signing key {file} is not trusted now, so a successor would not be either.",
            hint="add a current entry of its public key to TMI_OPS_TRUSTED_KEYS: `tmi-ops keys show`",
            code=Code.SIGNING_KEY,
        )
    new = new_secret_key()
    trusted = after_rotation(trust.trusted, old, new, now, record)
    only_file = Path(words[0]) if len(words) == 1 and Path(words[0]).is_file() else None
    retired = file.with_name(f"{file.name}.retired-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}")
    may_have_ended = False
    try:
        write_private(retired, file.read_text())
        text = secret_key_file(new, f"secret key of {trust.environment}, made by `tmi-ops keys rotate`")
        write_private(successor, text)
        if only_file is not None:
            may_have_ended = True
            write_durably(only_file, trusted_file_text(trust.environment, trusted).encode(), mode=0o644)
        write_private(file, text)
    except OSError as error:
        what = f"{error.filename or file} could not be written: {error.strerror}."
        if may_have_ended:
            raise OpsError(
                what,
                detail=f"{file} has the old key, {successor} the new one. {only_file} may already end the old one.",
                hint=f"if {only_file} names the new key: mv {successor} {file}; otherwise remove it and rotate again",
            ) from None
        successor.unlink(missing_ok=True)
        raise OpsError(
            what, detail="The old key is still in place.", hint="make the file writable, then rotate again"
        ) from None
    with suppress(OSError):  # it is a copy now
        successor.unlink()
    return Rotated(file, retired, trusted, only_file)


def after_rotation(
    trusted: Sequence[TrustedKey], old: SecretKey, new: SecretKey, now: datetime, record: str | None = None
) -> tuple[TrustedKey, ...]:
    """The trusted keys after `new` replaced `old` in its roles. The old one ends now, in whole seconds."""
    ends = now.astimezone(UTC).replace(microsecond=0)
    held = [one for one in trusted if one.key == old.public] or [TrustedKey(old.public)]
    others = [one for one in trusted if one.key != old.public]
    successors = [TrustedKey(new.public, one.roles) for one in held if one.until is None]
    return (*successors, *(one if one.until else replace(one, until=ends, record=record) for one in held), *others)


def add_age_identity(file: Path) -> str:
    """Add a new private key to an identity file; the existing keys still decrypt what was encrypted for them.

    Returns:
        The new public key.

    Raises:
        OpsError: the file cannot be read or written; it was left unchanged.
    """
    import pyrage

    read_identities(file)
    identity = pyrage.x25519.Identity.generate()
    try:
        write_private(file, f"{file.read_text().rstrip()}\n# public key: {identity.to_public()}\n{identity}\n")
    except OSError as error:
        raise OpsError(f"{file} could not be written: {error.strerror}.", hint="make the file writable") from None
    return str(identity.to_public())


def public_keys_of(identities: Sequence[Any]) -> tuple[str, ...]:
    """The recipients of private keys, without OpenSSH keys, for which age does not report one."""
    return tuple(str(one.to_public()) for one in identities if hasattr(one, "to_public"))


def trusted_file_text(environment: str, trusted: Sequence[TrustedKey]) -> str:
    """The content of a file for TMI_OPS_TRUSTED_KEYS."""
    head = f"# Keys that sign for {environment}: [role:]key[@end[#record]]. `minisign -V -P KEY -m FILE` checks a file."
    text = "\n".join([head, *map(trusted_entry, trusted)]) + "\n"
    if trusted_keys(text) != list(trusted):
        raise AssertionError
    return text
