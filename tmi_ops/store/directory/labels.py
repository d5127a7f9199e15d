"""What is known of an object beside its bytes: its SHA-256, its size and our metadata, in a file of its own. Pure.

A file and its label cannot be replaced in one step. So a label file has the old label and the new one while an object
is replaced, and the bytes say which of them counts: a crash in between leaves an object with its own label.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Label:
    """`size` in bytes, `sha256` in hexadecimal."""

    sha256: str
    size: int
    metadata: Mapping[str, str]


def etag_of(label: Label, written_ns: int) -> str:
    """Of an object with this label, whose file was written then: another one, too, once somebody else changed its bytes
    in place."""
    return f'"{label.sha256}-{written_ns:x}"'


def to_bytes(labels: Sequence[Label]) -> bytes:
    """The content of a label file."""
    return json.dumps([asdict(label) for label in labels], separators=(",", ":")).encode()


def parse(data: bytes) -> tuple[Label, ...]:
    """The labels of a file; none where somebody else wrote it."""
    try:
        return tuple(
            Label(str(one["sha256"]), int(one["size"]), {str(k): str(v) for k, v in one["metadata"].items()})
            for one in json.loads(data)
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return ()


def label_of(labels: Sequence[Label], size: int, sha256: Callable[[], str]) -> Label | None:
    """The one that belongs to an object of this size; None: none does, as somebody else put the object there.

    Args:
        sha256: reads the object; called only while the object is being replaced by another of its size.
    """
    fitting = [label for label in labels if label.size == size]
    if len(fitting) <= 1:
        return next(iter(fitting), None)
    found = sha256()
    return next((label for label in fitting if label.sha256 == found), None)


def while_replacing(old: Label | None, new: Label) -> tuple[Label, ...]:
    """The labels of a file whose object is about to be replaced: the bytes tell them apart, where they differ."""
    return (new,) if old is None or old.sha256 == new.sha256 else (old, new)
