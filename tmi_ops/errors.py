"""One exception family. Each message says what happened, what was kept safe and what to do next."""

from __future__ import annotations


class OpsError(Exception):
    """What a person can act on.

    Args:
        what: what happened, one sentence.
        kept: what was kept safe, or that nothing was changed.
        next_step: the next thing to do, a command where there is one.
        transient: it may pass by itself, so trying again later is worthwhile.
    """

    exit_code = 2

    def __init__(
        self, what: str, *, kept: str = "Nothing was changed.", next_step: str = "", transient: bool = False
    ) -> None:
        super().__init__(what)
        self.what = what
        self.kept = kept
        self.next_step = next_step
        self.transient = transient

    def __str__(self) -> str:
        parts = [self.what, self.kept]
        if self.next_step:
            parts.append(f"Next: {self.next_step}")
        return " ".join(part for part in parts if part)


def first_line(error: BaseException) -> str:
    """What an error says first; its kind where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class SettingsError(OpsError):
    """A setting is missing, malformed or not allowed in this environment."""


class DatabaseError(OpsError):
    """PostgreSQL could not be reached, refused us, or answered with an error."""


class ProgramError(OpsError):
    """A PostgreSQL program is missing, of the wrong version, or failed; `output` is the end of what it said then."""

    output = ""


class StoreError(OpsError):
    """The S3 store could not be reached, refused us, or lacks an object."""


class ObjectMissingError(StoreError):
    """The store has no object of that key."""


class ObjectExistsError(StoreError):
    """A conditional put found an object of that key; it was left as it is."""


class IntegrityError(StoreError):
    """Bytes are not the bytes that were written: size or SHA-256 differs, or decryption failed."""


class BackupError(OpsError):
    """A backup did not come to be."""


class RecoveryError(OpsError):
    """A restore or its proof did not succeed."""


class DiskSpaceError(OpsError):
    """The work would fill a disk, so it was not begun."""


class CacheError(OpsError):
    """Redis could not be reached, refused us, or answered with an error."""


class StackError(OpsError):
    """The embedded stack could not be started, stopped or found."""
