"""Verifies that a segment continues the WAL that was delivered before it, by its records. Pure.

SHA-256, signature, size and header were verified when it was fetched.
"""

from __future__ import annotations

from dataclasses import dataclass

from tmi_ops.error_codes import Code
from tmi_ops.errors import IntegrityError
from tmi_ops.postgres.wal_files import Segment, format_lsn
from tmi_ops.postgres.wal_records import read_records
from tmi_ops.shadow.report import TAKE_A_BASE, TroubleKind
from tmi_ops.wal.links import Links, continues, links_from
from tmi_ops.wal.segments import minimal_breaks


class RefusedError(IntegrityError):
    """WAL that is not delivered. `kind`: why; `lsn` and `segment`: the exact place."""

    default_code = Code.SHADOW_REFUSED

    def __init__(self, kind: TroubleKind, message: str, lsn: int, segment: str, hint: str) -> None:
        super().__init__(message, detail=f"Everything before {format_lsn(lsn)} is replayed.", hint=hint)
        self.kind, self.lsn, self.segment = kind, lsn, segment


@dataclass(frozen=True)
class Handed:
    """A delivered segment.

    Args:
        content: the bytes of the segment, with zeros after `end`.
        end: the LSN after the last valid byte.
        whole: the segment is complete.
        links: from its records; `sha256`: of the complete plain segment, from the archive; None: unknown.
        etag: of the partial; None: it is complete.
    """

    segment: Segment
    content: bytes
    end: int
    whole: bool
    links: Links
    sha256: str | None = None
    etag: str | None = None


@dataclass(frozen=True)
class Fetched:
    """A fetched segment; see `Handed`. `chain`: SHA-256 of the previous segment, as recorded by its writer."""

    segment: Segment
    content: bytes
    end: int
    whole: bool
    sha256: str | None = None
    chain: str | None = None
    etag: str | None = None


def verified(fetched: Fetched, before: Handed | None) -> tuple[Handed, RefusedError | None]:
    """Decide what may be delivered.

    Args:
        before: the last delivered part, of the same segment or of the previous one; None: nothing was delivered.

    Returns:
        The segment, cut off where the replay must stop, and the reason, if any.

    Raises:
        RefusedError: nothing of it may be delivered.
    """
    segment, end = fetched.segment, fetched.end
    if before is not None and before.segment.start == segment.start:
        _require_same_beginning(fetched, before)
        neighbour = None
    else:
        neighbour = before if before is not None and before.segment.end == segment.start else None
    records = read_records(fetched.content, None if fetched.whole else end)
    links = links_from(records, levels_read=True, chain=fetched.chain)
    if neighbour is not None:
        _require_continuation(fetched, neighbour, links)
        links = links.after(neighbour.links)
    stop: RefusedError | None = None
    content = fetched.content
    for found in minimal_breaks(segment, links):
        if found.lsn < end:
            stop = RefusedError("minimal WAL", found.describe(), found.lsn, segment.name, TAKE_A_BASE)
            end, content = found.lsn, cut_off(content, found.lsn - segment.start)
            break
    whole = fetched.whole and stop is None
    return Handed(segment, content, end, whole, links, fetched.sha256, fetched.etag), stop


def cut_off(content: bytes, size: int) -> bytes:
    """Replace everything after the first `size` bytes with zeros."""
    return content[:size].ljust(len(content), b"\0")


def first_difference(one: bytes, other: bytes, size: int) -> int | None:
    """Offset of the first difference within the first `size` bytes, or None."""
    if one[:size] == other[:size]:
        return None
    low, high = 0, size
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if one[low:middle] != other[low:middle] else (middle, high)
    return low


def _require_same_beginning(fetched: Fetched, before: Handed) -> None:
    """Require that the segment starts with the WAL that was delivered: a partial may only grow."""
    segment = fetched.segment
    if not fetched.whole and fetched.end < before.end:
        raise RefusedError(
            "splice",
            f"The partial segment {segment.name} in the archive became shorter, from {format_lsn(before.end)} to "
            f"{format_lsn(fetched.end)}: it was replaced by an older one, or the server's files were reset to an "
            "earlier state.",
            fetched.end,
            segment.name,
            "find out who writes to this archive: `tmi-ops wal status`",
        )
    differs = first_difference(fetched.content, before.content, min(before.end, fetched.end) - segment.start)
    if differs is not None:
        at = segment.start + differs
        raise RefusedError(
            "splice",
            f"The WAL of {segment.name} in the archive was changed from {format_lsn(at)} on: two servers wrote the "
            "same timeline, or the server's files were reset to an earlier state.",
            at,
            segment.name,
            "check the archive: `tmi-ops wal gaps`",
        )


def _require_continuation(fetched: Fetched, before: Handed, links: Links) -> None:
    segment = fetched.segment
    other = fetched.chain is not None and before.sha256 is not None and fetched.chain != before.sha256
    if not other and continues(before.links, links) is not False:
        return
    first = links.first if links.first is not None else segment.start
    named = "unknown" if links.prev is None else format_lsn(links.prev)
    last = "unknown" if before.links.last is None else format_lsn(before.links.last)
    raise RefusedError(
        "splice",
        f"{segment.name} does not continue {before.segment.name}: its first record, at {format_lsn(first)}, follows "
        f"the record at {named}, and the last record of {before.segment.name} is at {last}."
        if not other or named != last
        else f"{segment.name} was archived after another version of {before.segment.name} than the archive has now.",
        segment.start,
        segment.name,
        TAKE_A_BASE,
    )
