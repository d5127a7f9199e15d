"""The exceptions. Each says what happened (ERROR), what is safe (DETAIL) and what to do (HINT)."""

from __future__ import annotations

import re
from typing import ClassVar

from tmi_ops.error_codes import Code

# A text that ends with a command takes no full stop: it would be copied with it.
_ENDS_WITH_COMMAND = re.compile(r"(?:^|[:,] |\bor |\bwith |\brun )(?:tmi-ops|GRANT|ALTER|SELECT|CREATE|DROP)\b[^`]*$")


class OpsError(Exception):
    """An error that a person can act on.

    Args:
        message: what happened, in one sentence.
        detail: what is safe, or that nothing was changed.
        hint: what to do next, in one sentence; with the command where there is one.
        code: the kind of error, where it is narrower than that of the class.
        transient: it may pass, so the same command can be tried again later.
    """

    exit_code = 2
    default_code: ClassVar[Code] = Code.FAILED

    def __init__(
        self,
        message: str,
        *,
        detail: str = "Nothing was changed.",
        hint: str = "",
        code: Code | None = None,
        transient: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.hint = hint
        self.code = code or self.default_code
        self.transient = transient

    @property
    def lines(self) -> tuple[str, ...]:
        """As a terminal or a log shows it: ERROR with its code, then DETAIL and HINT where there are any."""
        detail = (f"DETAIL: {self.detail}",) if self.detail else ()
        return (f"ERROR: [{self.code}] {self.message}", *detail, *self._hint())

    def _hint(self) -> tuple[str, ...]:
        return (f"HINT: {as_sentence(self.hint)}",) if self.hint else ()

    def __str__(self) -> str:
        return " ".join(part for part in (self.message, self.detail, *self._hint()) if part)


def as_sentence(text: str) -> str:
    """A capital letter and a full stop, unless the text begins or ends with a command."""
    if text.startswith("tmi-ops "):
        return f"Run: {text}"
    begun = text[:1].upper() + text[1:]
    return begun if begun.endswith((".", "?", "!", "`", ":")) or _ENDS_WITH_COMMAND.search(begun) else f"{begun}."


def first_line(error: BaseException) -> str:
    """What an error says first; its kind where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class SettingsError(OpsError):
    """A setting is missing, malformed or not allowed in this environment."""

    default_code = Code.SETTING


class DatabaseError(OpsError):
    """PostgreSQL could not be reached, refused us, or answered with an error."""

    default_code = Code.POSTGRESQL


class ProgramError(OpsError):
    """A PostgreSQL program is missing, of the wrong version, or failed; `output` is the end of what it said then."""

    default_code = Code.PROGRAM

    output = ""


class StoreError(OpsError):
    """The store could not be reached, refused us, or lacks an object."""

    default_code = Code.STORE


class ObjectMissingError(StoreError):
    """The store has no object of that key."""

    default_code = Code.OBJECT_MISSING


class ObjectExistsError(StoreError):
    """A conditional put found an object of that key; it was left as it is."""

    default_code = Code.OBJECT_EXISTS


class IntegrityError(StoreError):
    """Bytes are not the bytes that were written: size or SHA-256 differs, or decryption failed."""

    default_code = Code.DAMAGED


class BackupError(OpsError):
    """A backup was not taken."""

    default_code = Code.BACKUP


class RecoveryError(OpsError):
    """A restore or its verification failed."""

    default_code = Code.RECOVERY


class DiskSpaceError(OpsError):
    """The work would fill a disk, so it was not begun."""

    default_code = Code.DISK_SPACE


class CacheError(OpsError):
    """Redis could not be reached, refused us, or answered with an error."""

    default_code = Code.CACHE


class StackError(OpsError):
    """The embedded stack could not be started, stopped or found."""

    default_code = Code.STACK
