"""The newest backup of each kind that this machine has seen: a store that went back to an older state is noticed.

Kept beside the machine's other notes, never in the store. Only where keys are pinned: else anybody's word would count.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tmi_ops.private import make_directory, write_private
from tmi_ops.store.manifest import Kind
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.trust import UntrustedError


class RolledBackError(UntrustedError):
    """The store lacks the newest backup that this machine has seen in it, and has none that is newer."""


class _Seen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    newest: dict[Kind, str] = Field(default_factory=dict)


def went_back(newest_seen: Mapping[Kind, str], found: Mapping[Kind, Sequence[str]]) -> list[str]:
    """The backups that were seen and are gone although nothing newer is there. `found`: ids by kind, listed whole."""
    return [seen for kind, seen in newest_seen.items() if kind in found and max(found[kind], default="") < seen]


def notice(store: ObjectStore, found: Mapping[Kind, Sequence[str]]) -> list[RolledBackError]:
    """Compare what is there with what was seen before, and remember the newest.

    Args:
        found: ids of backups that are trusted, by the kinds that were listed.
    """
    if not store.trust.is_pinned or store.seen_file is None:
        return []
    file = store.seen_file
    seen = _read(file)
    lost = went_back(seen.newest, found)
    newest = {kind: max(ids) for kind, ids in found.items() if ids}
    kept = {**newest, **{kind: max(one, newest.get(kind, "")) for kind, one in seen.newest.items()}}
    if kept != seen.newest:
        with contextlib.suppress(OSError):
            make_directory(file.parent)
            write_private(file, _Seen(newest=kept).model_dump_json(indent=2) + "\n")
    return [_rolled_back(backup_id, file) for backup_id in lost]


def _read(file: Path) -> _Seen:
    try:
        return _Seen.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return _Seen()


def _rolled_back(backup_id: str, file: Path) -> RolledBackError:
    return RolledBackError(
        f"The store went back: {backup_id}, which this machine has seen there, is gone, and nothing newer is there.",
        kept="What is there was left as it is.",
        next_step="find out who removed it, and bring it back if the bucket keeps versions; if it was you, delete this "
        f"machine's note {file}",
    )
