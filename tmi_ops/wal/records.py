"""The records of an archive, facts that a listing does not show: `wal/<system identifier>/records.json`.

They say which timeline of which server was followed since when, and where the WAL has breaks. They are written with
conditional puts, so that concurrent writers lose nothing; the object stays small. It is signed. If no trusted key
signed it, only the breaks are used, because these cannot make anything look better than it is; which timelines were
followed or chosen is ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from tmi_ops.errors import ObjectExistsError, ObjectMissingError, StoreError
from tmi_ops.store.backend import IfAbsent, IfUnchanged
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.small_objects import get_single, look
from tmi_ops.store.stamped import check_note, put_note
from tmi_ops.store.trust import UntrustedError
from tmi_ops.wal.breaks import Break
from tmi_ops.wal.layout import records_key

_ATTEMPTS = 8
# Servers may switch roles for years. Only the newest entries matter.
_MOST_FOLLOWED = 200


class Followed(BaseModel):
    """From `since` on, a receiver followed this timeline at `server`; or, with `by` "person", a person chose it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    timeline: int = Field(ge=1)
    since: AwareDatetime
    server: str = ""
    by: Literal["receiver", "person"] = "receiver"


class BreakRecord(BaseModel):
    """A point that no replay can pass; see `Break`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    timeline: int = Field(ge=1)
    lsn: int = Field(ge=0)
    kind: Literal["minimal", "unlinked"]


class ArchiveRecords(BaseModel):
    """The records of one archive, oldest first."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format_version: int = 1
    followed: tuple[Followed, ...] = ()
    breaks: tuple[BreakRecord, ...] = ()

    @property
    def current(self) -> Followed | None:
        """The newest entry: the timeline that was followed or chosen last."""
        return self.followed[-1] if self.followed else None

    @property
    def word(self) -> Followed | None:
        """The newest choice by a person of the environment's timeline."""
        return next((item for item in reversed(self.followed) if item.by == "person"), None)

    def with_followed(self, timeline: int, server: str, now: datetime) -> ArchiveRecords:
        """The records with the timeline that a receiver follows now. Unchanged if it followed the same before."""
        last = next((item for item in reversed(self.followed) if item.by == "receiver"), None)
        is_last_word = self.current is None or self.current.by == "receiver" or self.current.timeline == timeline
        if last is not None and (last.timeline, last.server) == (timeline, server) and is_last_word:
            return self
        return self._and(Followed(timeline=timeline, since=now, server=server))

    def with_word(self, timeline: int, now: datetime) -> ArchiveRecords:
        """The records with a person's choice of a timeline."""
        return self._and(Followed(timeline=timeline, since=now, by="person"))

    def with_break(self, found: Break) -> ArchiveRecords:
        """The records with a break. Unchanged if it is already recorded."""
        record = BreakRecord(timeline=found.timeline, lsn=found.lsn, kind=found.kind)
        if record in self.breaks:
            return self
        return self.model_copy(update={"breaks": (*self.breaks, record)})

    def as_breaks(self) -> tuple[Break, ...]:
        return tuple(sorted({Break(item.timeline, item.lsn, item.kind) for item in self.breaks}))

    def _and(self, followed: Followed) -> ArchiveRecords:
        return self.model_copy(update={"followed": (*self.followed, followed)[-_MOST_FOLLOWED:]})


def read_records(store: ObjectStore, system_identifier: str) -> ArchiveRecords:
    """The records. Empty if there are none yet.

    Raises:
        UntrustedError: no trusted key signed them.
        StoreError: they cannot be parsed, or the store failed.
    """
    records, untrusted = _read(store, records_key(system_identifier))
    if untrusted is not None:
        raise untrusted
    return records


def known_records(store: ObjectStore, system_identifier: str) -> tuple[ArchiveRecords, tuple[str, ...]]:
    """The part of the records that can be used, and a sentence if that is not all of them. A recovery works without the
    rest.

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
    """Change the records. `change` may be called several times if other processes write at the same time.

    Raises:
        UntrustedError: keys are pinned, and this host has no key that may sign them.
        StoreError: they cannot be parsed, the store failed, or another process wrote at every attempt.
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
