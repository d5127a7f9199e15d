"""Announce a change, so that no reader trusts the catalogue about it: `catalogue/changes/<time>-<id>`.

An announcement is an empty object, written before the change. Until a catalogue contains the change, every reader reads
that backup's own documents. If a writer dies at any point, that backup stays doubted, and nothing worse happens.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tmi_ops.errors import OpsError, StoreError
from tmi_ops.store.folders import kind_of
from tmi_ops.store.objects import ListedObject, ObjectStore
from tmi_ops.store.stored_catalogue import CATALOGUE_FOLDER

CHANGES = f"{CATALOGUE_FOLDER}/changes"
# The subject of an announcement that the evidence of drills is about to change.
DRILLS = "drills"
# No writer takes longer between its announcement and its change.
ABANDONED = timedelta(days=1)
_NAME = re.compile(r"\d{8}T\d{12}Z-[0-9a-f]{4}-(?P<subject>[A-Za-z0-9-]+)")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Change:
    """An announcement. `subject`: the id of a backup, or `DRILLS`."""

    name: str
    subject: str
    at: datetime

    @property
    def key(self) -> str:
        return f"{CHANGES}/{self.name}"


def changes_in(listed: Iterable[ListedObject]) -> list[Change]:
    """The announcements in a listing of the catalogue's folder. Objects of other names are ignored. Pure."""
    found = []
    for item in listed:
        name = item.key.removeprefix(f"{CHANGES}/")
        match = _NAME.fullmatch(name)
        if match is not None and (match["subject"] == DRILLS or kind_of(match["subject"])):
            found.append(Change(name, match["subject"], item.modified))
    return found


def announce(store: ObjectStore, subjects: Sequence[str]) -> list[Change]:
    """Announce a change. If that fails, the change still proceeds: a catalogue must not stop a backup.

    Raises:
        StoreError: the store failed for now (a transient error).
    """
    now = datetime.now(UTC)
    made = []
    try:
        for subject in subjects:
            change = Change(f"{now:%Y%m%dT%H%M%S%fZ}-{secrets.token_hex(2)}-{subject}", subject, now)
            store.put_bytes(change.key, b"")
            made.append(change)
    except OpsError as error:
        if isinstance(error, StoreError) and error.transient:
            raise
        _log.warning(
            "A change could not be announced to the catalogue (%s); update it with `tmi-ops catalogue rebuild`.",
            error.message,
        )
    return made
