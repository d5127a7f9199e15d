"""What receivers have seen of an archive's history that no listing tells: `wal/<system identifier>/records.json`.

Which timeline of which server was followed since when, and where the WAL breaks. Written under a condition, so that two
who write at once lose nothing; it only grows, and is small. It is signed: of one that no trusted key signed only the
breaks are kept, which can make nothing look better than it is, and never the word on a line.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from tmi_ops.errors import ObjectExistsError, ObjectMissingError, StoreError
from tmi_ops.store.backend import IfAbsent, IfUnchanged
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.single_put import get_single, look
from tmi_ops.store.stamped import check_note, put_note
from tmi_ops.store.trust import UntrustedError
from tmi_ops.wal.breaks import Break
from tmi_ops.wal.layout import records_key

_ATTEMPTS = 8
# Servers that take turns for years: the newest are what matters.
_MOST_FOLLOWED = 200


class Followed(BaseModel):
    """From `since` on a receiver followed this timeline at `server`; or, `by` a person, somebody said it is the one."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    timeline: int = Field(ge=1)
    since: AwareDatetime
    server: str = ""
    by: Literal["receiver", "person"] = "receiver"


class BreakRecord(BaseModel):
    """A place that no replay passes; see `Break`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    timeline: int = Field(ge=1)
    lsn: int = Field(ge=0)
    kind: Literal["minimal", "unlinked"]


class ArchiveRecords(BaseModel):
    """All that was recorded of one archive, the oldest first."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format_version: int = 1
    followed: tuple[Followed, ...] = ()
    breaks: tuple[BreakRecord, ...] = ()

    @property
    def current(self) -> Followed | None:
        """What was followed last."""
        return self.followed[-1] if self.followed else None

    @property
    def word(self) -> Followed | None:
        """The newest word of a person on which timeline is the environment's."""
        return next((item for item in reversed(self.followed) if item.by == "person"), None)

    def with_followed(self, timeline: int, server: str, now: datetime) -> ArchiveRecords:
        """With what a receiver follows now; unchanged where it is what was followed before."""
        last = next((item for item in reversed(self.followed) if item.by == "receiver"), None)
        is_last_word = self.current is None or self.current.by == "receiver" or self.current.timeline == timeline
        if last is not None and (last.timeline, last.server) == (timeline, server) and is_last_word:
            return self
        return self._and(Followed(timeline=timeline, since=now, server=server))

    def with_word(self, timeline: int, now: datetime) -> ArchiveRecords:
        """With a person's word."""
        return self._and(Followed(timeline=timeline, since=now, by="person"))

    def with_break(self, found: Break) -> ArchiveRecords:
        """With a break; unchanged where it is known."""
        record = BreakRecord(timeline=found.timeline, lsn=found.lsn, kind=found.kind)
        if record in self.breaks:
            return self
        return self.model_copy(update={"breaks": (*self.breaks, record)})

    def as_breaks(self) -> tuple[Break, ...]:
        return tuple(sorted({Break(item.timeline, item.lsn, item.kind) for item in self.breaks}))

    def _and(self, followed: Followed) -> ArchiveRecords:
        return self.model_copy(update={"followed": (*self.followed, followed)[-_MOST_FOLLOWED:]})


def read_records(store: ObjectStore, system_identifier: str) -> ArchiveRecords:
    """What was recorded; nothing where nobody has recorded anything yet.

    Raises:
        UntrustedError: no trusted key signed it.
        StoreError: it cannot be understood, or the store failed.
    """
    records, untrusted = _read(store, records_key(system_identifier))
    if untrusted is not None:
        raise untrusted
    return records


def known_records(store: ObjectStore, system_identifier: str) -> tuple[ArchiveRecords, tuple[str, ...]]:
    """What can be believed of the records, and a sentence where that is not all: a recovery does without the rest.

    Raises:
        StoreError: the store failed.
    """
    try:
        records, untrusted = _read(store, records_key(system_identifier))
    except StoreError as error:
        if error.transient:
            raise
        return ArchiveRecords(), (error.message,)
    return records, () if untrusted is None else (untrusted.message,)


def _read(store: ObjectStore, key: str) -> tuple[ArchiveRecords, UntrustedError | None]:
    try:
        body, head = get_single(store, key)
    except ObjectMissingError:
        return ArchiveRecords(), None
    records = _parsed(body, key)
    try:
        check_note(store, key, head.metadata, body, "WAL")
    except UntrustedError as error:
        return ArchiveRecords(breaks=records.breaks), error
    return records, None


def _parsed(body: bytes, key: str) -> ArchiveRecords:
    try:
        return ArchiveRecords.model_validate_json(body)
    except ValidationError:
        raise StoreError(
            f"The records of the WAL archive, {key}, cannot be read.",
            detail="Nothing was changed.",
            hint="restore an earlier version of this object if the bucket keeps versions; otherwise delete it and "
            "take a base backup, because breaks in the WAL before it are then unknown",
        ) from None


def update_records(
    store: ObjectStore, system_identifier: str, change: Callable[[ArchiveRecords], ArchiveRecords]
) -> ArchiveRecords:
    """Write what `change` makes of the records. It may be called several times, while others write too.

    Raises:
        UntrustedError: keys are pinned, and ours may not sign this.
        StoreError: it cannot be understood, the store failed, or others wrote all the time.
    """
    key = records_key(system_identifier)
    for _ in range(_ATTEMPTS):
        head = look(store, key)
        before, untrusted = (ArchiveRecords(), None) if head is None else _read(store, key)
        after = change(before)
        if after == before and untrusted is None:
            return before
        condition = IfAbsent() if head is None else IfUnchanged(head.etag)
        try:
            put_note(store, key, after.model_dump_json(indent=2).encode() + b"\n", condition, "WAL")
        except ObjectExistsError:
            continue
        return after
    raise StoreError(
        f"{key} was changed by another process at every attempt.",
        hint="run the command again; see which receiver is running: `tmi-ops wal status`",
        transient=True,
    )
