"""A segment is what its name says, and continues what was handed over before it. Pure: bytes in, facts or refusal out.

What the store's own marks tell (SHA-256, signature, size, header) was seen when it was fetched; here the records speak.
"""

from __future__ import annotations

from dataclasses import dataclass

from tmi_ops.error_codes import Code
from tmi_ops.errors import IntegrityError
from tmi_ops.postgres.wal_files import Segment, format_lsn
from tmi_ops.postgres.wal_records import read_records
from tmi_ops.shadow.report import TroubleKind
from tmi_ops.wal.links import Links, continues, links_from
from tmi_ops.wal.segments import minimal_breaks


class RefusedError(IntegrityError):
    """Bytes that are not handed over: `kind`, and the exact place."""

    default_code = Code.SHADOW_REFUSED

    def __init__(self, kind: TroubleKind, message: str, lsn: int, segment: str, hint: str) -> None:
        super().__init__(message, detail=f"Everything before {format_lsn(lsn)} is replayed.", hint=hint)
        self.kind, self.lsn, self.segment = kind, lsn, segment


@dataclass(frozen=True)
class Handed:
    """A segment that was handed over, as far as it goes.

    Args:
        content: the whole segment's bytes, zeros behind `end`.
        end: the LSN behind the last byte that belongs.
        whole: nothing more will come of it.
        links: by its own records; `sha256` of the plain whole segment, as the archive says; None: not known.
        etag: of the partial; None: it is whole.
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
    """What was fetched, beside its bytes: see `Handed`. `chain`: SHA-256 of the segment before it, as its writer
    knew it."""

    segment: Segment
    content: bytes
    end: int
    whole: bool
    sha256: str | None = None
    chain: str | None = None
    etag: str | None = None


def verified(fetched: Fetched, before: Handed | None) -> tuple[Handed, RefusedError | None]:
    """What may be handed over.

    Args:
        before: what was handed over last: of the same segment, or of the one before it; None: nothing was.

    Returns:
        The segment, cut off where it must not be replayed further, and why it is.

    Raises:
        RefusedError: none of it may be handed over.
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
            stop = RefusedError("minimal WAL", found.words(), found.lsn, segment.name, "tmi-ops backup base")
            end, content = found.lsn, cut_off(content, found.lsn - segment.start)
            break
    whole = fetched.whole and stop is None
    return Handed(segment, content, end, whole, links, fetched.sha256, fetched.etag), stop


def cut_off(content: bytes, size: int) -> bytes:
    """Zeros behind the first `size` bytes."""
    return content[:size].ljust(len(content), b"\0")


def first_difference(one: bytes, other: bytes, size: int) -> int | None:
    """The place of the first byte that differs in the first `size`; None: none does."""
    if one[:size] == other[:size]:
        return None
    low, high = 0, size
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if one[low:middle] != other[low:middle] else (middle, high)
    return low


def _require_same_beginning(fetched: Fetched, before: Handed) -> None:
    """WAL that was handed over stays as it was; the object under its name may only grow."""
    segment = fetched.segment
    if not fetched.whole and fetched.end < before.end:
        raise RefusedError(
            "splice",
            f"The open segment {segment.name} went back in the archive, from {format_lsn(before.end)} to "
            f"{format_lsn(fetched.end)}: somebody put an older one over it, or the server's files were put back.",
            fetched.end,
            segment.name,
            "find out who writes this archive: `tmi-ops wal status`",
        )
    differs = first_difference(fetched.content, before.content, min(before.end, fetched.end) - segment.start)
    if differs is not None:
        at = segment.start + differs
        raise RefusedError(
            "splice",
            f"{segment.name} in the archive has other WAL from {format_lsn(at)} on than it had before: two servers "
            "wrote the same timeline, or the server's files were put back to an earlier state.",
            at,
            segment.name,
            "tmi-ops wal gaps",
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
        else f"{segment.name} was archived behind another {before.segment.name} than the archive has now.",
        segment.start,
        segment.name,
        "tmi-ops backup base",
    )
