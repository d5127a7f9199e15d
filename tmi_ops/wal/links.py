"""Links: whether an archived segment continues the one before it, by its records instead of its name.

They are kept in each object's metadata, so that thousands of segments can be checked without reading any of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tmi_ops.errors import OpsError
from tmi_ops.postgres.wal_files import Segment, format_lsn, parse_lsn
from tmi_ops.postgres.wal_records import LevelChange, SegmentRecords

_LEVELS = ("minimal", "replica", "logical")


@dataclass(frozen=True)
class Links:
    """The LSNs and times in a segment's metadata that describe its records. None: not known, or there is none.

    Args:
        first: the first record that begins in the segment. `prev` is the previous record that it refers to.
        last: the last record that begins in the segment, or before it if none does. `before_last` precedes `last`.
        overwrites: `first` replaces a record that a crash cut off.
        first_commit, last_commit: commits near the segment's beginning and end.
        levels: the changes of wal_level. None: not looked for.
        chain: SHA-256 of the previous segment, uncompressed, if the writer knew it.
    """

    first: int | None = None
    prev: int | None = None
    last: int | None = None
    before_last: int | None = None
    overwrites: bool = False
    first_commit: datetime | None = None
    last_commit: datetime | None = None
    levels: tuple[LevelChange, ...] | None = None
    chain: str | None = None

    def after(self, before: Links | None) -> Links:
        """These links; if no record begins in the segment, `last` and `before_last` come from the segment before it."""
        if self.last is not None or before is None:
            return self
        return replace(self, last=before.last, before_last=before.before_last)

    def metadata(self) -> dict[str, str]:
        """The links as object metadata."""
        facts = {
            "first": _lsn(self.first),
            "prev": _lsn(self.prev),
            "last": _lsn(self.last),
            "beforelast": _lsn(self.before_last),
            "overwrites": "yes" if self.overwrites else None,
            "firstcommit": None if self.first_commit is None else self.first_commit.isoformat(),
            "lastcommit": None if self.last_commit is None else self.last_commit.isoformat(),
            "levels": None if self.levels is None else _levels(self.levels),
            "chain": self.chain,
        }
        return {name: value for name, value in facts.items() if value is not None}


def links_of(metadata: Mapping[str, str]) -> Links:
    """The links in an object's metadata. Values that cannot be parsed are None."""
    return Links(
        first=_parsed_lsn(metadata.get("first")),
        prev=_parsed_lsn(metadata.get("prev")),
        last=_parsed_lsn(metadata.get("last")),
        before_last=_parsed_lsn(metadata.get("beforelast")),
        overwrites=metadata.get("overwrites") == "yes",
        first_commit=_moment(metadata.get("firstcommit")),
        last_commit=_moment(metadata.get("lastcommit")),
        levels=_parsed_levels(metadata.get("levels")),
        chain=metadata.get("chain"),
    )


def links_from(records: SegmentRecords, *, levels_read: bool, chain: str | None = None) -> Links:
    """The links of a segment whose records were read."""
    return Links(
        first=records.first,
        prev=records.prev,
        last=records.last,
        before_last=records.before_last,
        overwrites=records.overwrites,
        first_commit=records.first_commit,
        last_commit=records.last_commit,
        levels=records.levels if levels_read else None,
        chain=chain,
    )


def continues(before: Links, after: Links) -> bool | None:
    """Whether the segment of `after` continues the segment of `before`. None: not known.

    After a crash the first record may replace one that was cut off at the end of the segment before. It then refers to
    the record before that one.
    """
    if after.prev is None or before.last is None:
        return None
    if after.prev == before.last:
        return True
    if not after.overwrites:
        return False
    return None if before.before_last is None else after.prev == before.before_last


def unlinked(chain: Iterable[tuple[Segment, Links, str | None]]) -> Iterator[Segment]:
    """The segments that do not continue the one before them. Two segments with a gap between them are not compared.

    Args:
        chain: segments in WAL order, with their links and the SHA-256 of their content (None: not known).
    """
    before: tuple[Segment, Links, str | None] | None = None
    for segment, found, sha256 in chain:
        links = found
        if before is not None and before[0].end == segment.start:
            links = found.after(before[1])
            other = found.chain is not None and before[2] is not None and found.chain != before[2]
            if other or continues(before[1], found) is False:
                yield segment
        before = segment, links, sha256


def _lsn(value: int | None) -> str | None:
    return None if value is None else format_lsn(value)


def _parsed_lsn(text: str | None) -> int | None:
    try:
        return None if text is None else parse_lsn(text)
    except OpsError:
        return None


def _moment(text: str | None) -> datetime | None:
    try:
        moment = None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)


def _levels(levels: tuple[LevelChange, ...]) -> str:
    return " ".join(f"{item.level}@{format_lsn(item.lsn)}" for item in levels) or "none"


def _parsed_levels(text: str | None) -> tuple[LevelChange, ...] | None:
    if text is None:
        return None
    found = (item.partition("@") for item in text.split() if "@" in item)
    return tuple(
        LevelChange(lsn, level) for level, _, at in found if level in _LEVELS and (lsn := _parsed_lsn(at)) is not None
    )
