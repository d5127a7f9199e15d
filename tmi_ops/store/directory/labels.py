"""An object's label, in a file of its own: SHA-256, size and our metadata. Pure.

A file and its label cannot be replaced in one step. So while an object is replaced, its label file has both the old and
the new label, and the bytes decide which one applies: after a crash in between, the object still has its own label.
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
    """The ETag of an object with this label and modification time, which shows edits of the file in place."""
    return f'"{label.sha256}-{written_ns:x}"'


def to_bytes(labels: Sequence[Label]) -> bytes:
    """The content of a label file."""
    return json.dumps([asdict(label) for label in labels], separators=(",", ":")).encode()


def parse(data: bytes) -> tuple[Label, ...]:
    """The labels in a label file; empty if it was not written by tmi_ops."""
    try:
        return tuple(
            Label(str(one["sha256"]), int(one["size"]), {str(k): str(v) for k, v in one["metadata"].items()})
            for one in json.loads(data)
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return ()


def label_of(labels: Sequence[Label], size: int, sha256: Callable[[], str]) -> Label | None:
    """The label of an object of this size; None if none matches, because the object was not put by tmi_ops.

    Args:
        sha256: reads the object; called only while the object is being replaced by another of its size.
    """
    fitting = [label for label in labels if label.size == size]
    if len(fitting) <= 1:
        return next(iter(fitting), None)
    found = sha256()
    return next((label for label in fitting if label.sha256 == found), None)


def while_replacing(old: Label | None, new: Label) -> tuple[Label, ...]:
    """The labels to write before an object is replaced. Its bytes tell them apart, if they differ."""
    return (new,) if old is None or old.sha256 == new.sha256 else (old, new)
