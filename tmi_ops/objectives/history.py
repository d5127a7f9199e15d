"""The history of the achieved RPO, kept in the store: one small object a day, `objectives/<day>.json`.

Between two readings the achieved RPO grows with the clock until something is archived, so it is worst just before that:
at most the time from the older reading's newest moment to the newer reading. If nothing was archived in between, this
is exact, however far apart they are. If something was and they are far apart, the time counts as not measured.

An hour keeps its worst value and how much of it was measured, so a day has at most 24 of them.

If keys are pinned, a day is signed, in its object's metadata. A day without a trusted signature counts as not measured
and is replaced; a host without a signing key records nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tmi_ops.errors import IntegrityError, ObjectExistsError, ObjectMissingError, StoreError
from tmi_ops.objectives.facts import RecoverabilityFacts
from tmi_ops.store.backend import IfAbsent, IfUnchanged
from tmi_ops.store.manifest import BrokenRecordError
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.small_objects import get_single
from tmi_ops.store.stamped import put_stamped, require_stamp
from tmi_ops.store.trust import UntrustedError

FOLDER = "objectives"
# The past days, in one object: they never change again. It sorts after every day.
PAST = f"{FOLDER}/past.json"
KEPT_DAYS = 35
FORMAT_VERSION = 1
# Readings further apart than this share of the RPO do not measure the time between them.
NEAR_ENOUGH = 0.5
READERS = 16
# Metadata with the digest of the body, so that the signature covers it.
_DIGEST = "body"
# A reading this far in the future came from a clock that ran ahead, and is ignored.
_CLOCK_WENT_BACK = timedelta(minutes=5)
_ATTEMPTS = 3
# Guards do not measure this kind at each reading; earlier releases did.
_NOT_COUNTED = "other"
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Point(_Fact):
    """One reading. `at` and `newest_at` are by the server's clock. `newest_at` None: nothing was verified."""

    at: AwareDatetime
    newest_at: AwareDatetime | None


class Hour(_Fact):
    """One hour, in seconds: the worst achieved RPO (None: unknown), how long it was measured, and for how much of that
    time no backup was verified."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, serialize_by_alias=True)

    worst: float | None = None
    measured: float = 0.0
    unverified: float = Field(default=0.0, alias="unproven")


class Day(_Fact):
    """One day, in UTC. `hours` is by hour of the day. `last` is the last reading, `storage` the bytes in the store by
    kind at that time."""

    format_version: int = FORMAT_VERSION
    day: date
    hours: dict[int, Hour] = Field(default_factory=dict)
    last: Point
    storage: dict[str, int] = Field(default_factory=dict)


_PAST: TypeAdapter[list[Day]] = TypeAdapter(list[Day])


@dataclass(frozen=True)
class Worst:
    """The worst achieved RPO of a period that ends now.

    Args:
        value: the worst; None: nothing was measured.
        measured: how much of `over` was measured; the rest may have been worse.
        unverified: how much of `measured` had no verified backup at all, and so no value.
    """

    over: timedelta
    value: timedelta | None
    measured: timedelta
    unverified: timedelta


def record_reading(store: ObjectStore, facts: RecoverabilityFacts, rpo: timedelta) -> None:
    """Record a reading. Several processes may do so at once. Removes days older than `KEPT_DAYS`.

    Raises:
        StoreError: the store failed, or today's object is damaged or from a newer release.
    """
    if store.trust.is_pinned and not store.trust.may_sign("reading"):
        return
    point = Point(at=facts.server_now.astimezone(UTC), newest_at=facts.verified.at if facts.verified else None)
    storage = {kind: usage.size for kind, usage in facts.storage.items()}
    today = point.at.date()
    for attempt in range(1, _ATTEMPTS + 1):
        found = _read(store, _key(today))
        yesterday = None if found else _read(store, _key(today - _DAY))
        before = (found and found.day) or (yesterday and yesterday.day)
        last = before.last if before and before.last.at <= point.at + _CLOCK_WENT_BACK else None
        if last is not None and last.at >= point.at:
            return
        hours = found.day.hours if found and found.day else {}
        day = Day(day=today, hours=add_point(hours, last, point, rpo), last=point, storage=storage)
        try:
            condition = IfUnchanged(found.etag) if found else IfAbsent()
            body = day.model_dump_json().encode() + b"\n"
            put_stamped(store, _key(today), body, {_DIGEST: _digest(body)}, condition, "reading")
        except ObjectExistsError:
            if attempt == _ATTEMPTS:
                return  # another process records readings just now
            continue
        if found is None:
            _fold(store, today)
            _remove_old(store, today)
        return


def add_point(hours: Mapping[int, Hour], last: Point | None, point: Point, rpo: timedelta) -> dict[int, Hour]:
    """The hours of the point's day, with the time since the last reading added. Pure.

    Args:
        last: the previous reading; None: there was none.
    """
    begin = max(last.at if last else point.at, datetime.combine(point.at.date(), time(), UTC))
    changed = dict(hours)
    for start, end in _by_hour(begin, point.at):
        hour = changed.get(start.hour, Hour())
        changed[start.hour] = _with_stretch(hour, start, end, last or point, point, rpo)
    return changed


def read_history(store: ObjectStore, now: datetime) -> list[Day]:
    """The readable days of the last `KEPT_DAYS` days, oldest first.

    Raises:
        StoreError: the store failed.
    """
    since = _key(now.astimezone(UTC).date() - KEPT_DAYS * _DAY)
    listed = [item.key for item in store.list_objects(f"{FOLDER}/")]
    past = _read_past(store) if PAST in listed else {}
    days = {day.day: day for day in past.values() if _key(day.day) >= since}
    keys = [key for key in listed if since <= key < PAST and key not in past]

    def read(key: str) -> Day | None:
        try:
            found = _read(store, key)
        except (BrokenRecordError, IntegrityError):
            return None  # counts as not measured
        return found.day if found else None

    with ThreadPoolExecutor(READERS, thread_name_prefix="history") as pool:
        days |= {day.day: day for day in pool.map(read, keys) if day is not None}
    return [days[day] for day in sorted(days)]


def worst_over(days: Sequence[Day], over: timedelta, now: datetime, value_now: timedelta | None) -> Worst:
    """The worst achieved RPO of a period that ends now. Pure.

    Args:
        value_now: the achieved RPO now; None: unknown, or nothing is verified.
    """
    since = now - over
    within = [
        hour
        for day in days
        for number, hour in day.hours.items()
        if since < datetime.combine(day.day, time(number), UTC) + _HOUR and day.day <= now.date()
    ]
    values = [hour.worst for hour in within if hour.worst is not None]
    if value_now is not None:
        values.append(value_now.total_seconds())
    return Worst(
        over=over,
        value=timedelta(seconds=max(values)) if values else None,
        measured=min(over, timedelta(seconds=sum(hour.measured for hour in within))),
        unverified=timedelta(seconds=sum(hour.unverified for hour in within)),
    )


def growth_per_day(days: Sequence[Day], now: datetime, size_now: int, over: timedelta = 7 * _DAY) -> float | None:
    """Bytes a day by which the store grew (or shrank) since the oldest reading within `over`. None: the history is too
    short."""
    within = [day for day in days if day.storage and now - over <= day.last.at <= now - _DAY / 2]
    if not within:
        return None
    oldest = within[0]
    size = sum(size for kind, size in oldest.storage.items() if kind != _NOT_COUNTED)
    return (size_now - size) / ((now - oldest.last.at) / _DAY)


def _with_stretch(hour: Hour, start: datetime, end: datetime, last: Point, point: Point, rpo: timedelta) -> Hour:
    """The hour with its part of the time between two readings added."""
    length = (end - start).total_seconds()
    if last.newest_at is None or point.newest_at is None:
        return hour.model_copy(update={"measured": hour.measured + length, "unverified": hour.unverified + length})
    archived = point.newest_at > last.newest_at
    if archived and point.at - last.at > NEAR_ENOUGH * rpo:
        if end < point.at:
            return hour
        end_value, length = point.at - point.newest_at, 0.0
    else:
        end_value = end - min(last.newest_at, point.newest_at)
    worst = max(0.0, end_value.total_seconds(), hour.worst or 0.0)
    return hour.model_copy(update={"worst": worst, "measured": hour.measured + length})


def _by_hour(begin: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """A period split at full hours; an empty period gives one empty part."""
    start = begin
    while True:
        next_hour = start.replace(minute=0, second=0, microsecond=0) + _HOUR
        yield start, min(next_hour, end)
        if next_hour >= end:
            return
        start = next_hour


def _key(day: date) -> str:
    return f"{FOLDER}/{day.isoformat()}.json"


@dataclass(frozen=True)
class _Found:
    """A stored day. `day` None: it has no trusted signature."""

    day: Day | None
    etag: str


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _read(store: ObjectStore, key: str) -> _Found | None:
    """A day as stored; None if there is none.

    Raises:
        BrokenRecordError: it is damaged, or from a newer release.
    """
    try:
        body, head = get_single(store, key)
    except ObjectMissingError:
        return None
    try:
        require_stamp(store, key, head.metadata, None, "reading")
    except UntrustedError:
        return _Found(None, head.etag)
    if store.trust.is_pinned and head.metadata.get(_DIGEST) != _digest(body):
        return _Found(None, head.etag)
    try:
        day = Day.model_validate_json(body)
    except ValidationError:
        raise BrokenRecordError(
            f"The readings in {key} cannot be parsed.", detail="They were left as they are."
        ) from None
    if day.format_version > FORMAT_VERSION:
        raise BrokenRecordError(
            f"The readings in {key} have format version {day.format_version}; this release reads up to "
            f"{FORMAT_VERSION}.",
            detail="They were left as they are.",
            hint="use the release of tmi-ops that wrote them, or a newer one",
        )
    return _Found(day, head.etag)


def _fold(store: ObjectStore, today: date) -> None:
    """Put the past days into one object. If that fails, they are read one by one."""
    with contextlib.suppress(StoreError):
        days = [day for day in read_history(store, datetime.combine(today, time(), UTC)) if day.day < today]
        if days:
            body = _PAST.dump_json(days) + b"\n"
            put_stamped(store, PAST, body, {_DIGEST: _digest(body)}, None, "reading")


def _read_past(store: ObjectStore) -> dict[str, Day]:
    """The past days by key; empty if the object cannot be read: the days themselves still exist."""
    try:
        body, head = get_single(store, PAST)
        require_stamp(store, PAST, head.metadata, None, "reading")
        days = _PAST.validate_json(body)
    except (ObjectMissingError, IntegrityError, UntrustedError, ValidationError):
        return {}
    if store.trust.is_pinned and head.metadata.get(_DIGEST) != _digest(body):
        return {}
    return {_key(day.day): day for day in days if day.format_version <= FORMAT_VERSION}


def _remove_old(store: ObjectStore, today: date) -> None:
    """Remove old days. If that fails, the store only keeps some kilobytes more."""
    oldest = _key(today - KEPT_DAYS * _DAY)
    with contextlib.suppress(StoreError):
        store.delete([item.key for item in store.list_objects(f"{FOLDER}/") if item.key < oldest])
