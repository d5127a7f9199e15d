"""The replication slot: what the server keeps for it, how much more it can keep, and the errors once it is lost."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from tmi_ops.error_codes import Code
from tmi_ops.errors import BackupError
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.sizes import shown_size
from tmi_ops.postgres.wal_files import Segment, format_lsn, parse_lsn
from tmi_ops.settings import PostgresSettings, Settings

# The slot of all environments in earlier releases. Two that shared it each advanced it past WAL that the other lacked.
SHARED_SLOT = "tmi_ops"
STANDBY_NAME = "tmi_ops"
LOST = "lost"
_MEGABYTE = 1 << 20
# The words of `ANY 2 (a, "b-c", *)`, including the keywords.
_NAMES = re.compile(r'"((?:[^"]|"")*)"|([^\s,()"]+)')


class SlotLostError(BackupError):
    """The server invalidated the slot, so it no longer keeps the WAL that the archive lacks."""

    default_code = Code.SLOT_LOST


class WalGoneError(BackupError):
    """The server has removed WAL that the archive lacks."""

    default_code = Code.WAL_GONE


@dataclass(frozen=True)
class SlotFacts:
    """A slot as the server reports it. Sizes in bytes.

    `kept` is how far the oldest WAL kept for it is behind the server. `left` is how much more WAL can be written before
    the slot is in danger of being lost (safe_wal_size); None: unlimited. `status` is its wal_status: reserved,
    extended, unreserved, lost.
    """

    name: str
    active: bool
    restart_lsn: int | None
    status: str | None
    left: int | None
    kept: int | None


@dataclass(frozen=True)
class ServerFacts:
    """The server's state that concerns the slot. `slot` is None if there is none of that name.

    `keep_limit` is max_slot_wal_keep_size in bytes; None: unlimited. `synchronous` says whether
    synchronous_standby_names has our name or `*`, so that commits may wait for us.
    """

    slot: SlotFacts | None
    keep_limit: int | None
    synchronous: bool
    in_recovery: bool
    lsn: int


def slot_name(settings: Settings) -> str:
    """The slot of one environment's archive in one store, such as `tmi_ops_production_1a2b3c4d`. No two archives share
    a slot."""
    store = settings.store
    top = store.bucket or str(store.directory or "")
    place = "\n".join((store.public_endpoint, top, store.prefix, settings.environment))
    environment = re.sub(r"[^a-z0-9]", "_", settings.environment.lower())[:40]
    return f"tmi_ops_{environment}_{hashlib.sha256(place.encode()).hexdigest()[:8]}"


def read_our_server(settings: Settings) -> ServerFacts:
    """Like `read_server`, for this environment's slot; for the shared slot of earlier releases if there is none.

    Raises:
        DatabaseError: as `read_server`.
    """
    found = read_server(settings.postgres, slot_name(settings))
    return found if found.slot is not None else read_server(settings.postgres, SHARED_SLOT)


def adopt_slot(postgres: PostgresSettings, old: str, new: str) -> bool:
    """Rename a slot by copying it, so that the WAL it keeps stays. Does nothing if it is in use or keeps no WAL.

    Returns:
        Whether the slot was renamed.

    Raises:
        DatabaseError: the server refused, or could not be reached.
    """
    with connect(postgres) as connection:
        row = connection.execute(
            "SELECT slot_type = 'physical' AND NOT active AND restart_lsn IS NOT NULL FROM pg_replication_slots "
            "WHERE slot_name = %s",
            (old,),
        ).fetchone()
        if row is None or not row[0]:
            return False
        connection.execute("SELECT pg_copy_physical_replication_slot(%s, %s)", (old, new))
        connection.execute("SELECT pg_drop_replication_slot(%s)", (old,))
    return True


def read_server(postgres: PostgresSettings, slot: str) -> ServerFacts:
    """Read the slot and the settings that concern it. PostgreSQL 13 and later.

    Raises:
        DatabaseError: the server could not be reached or refused.
    """
    with connect(postgres) as connection:
        row = connection.execute(
            """
            SELECT pg_is_in_recovery(), current_setting('max_slot_wal_keep_size', true),
                   current_setting('synchronous_standby_names'),
                   CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                        ELSE pg_current_wal_flush_lsn() END::text,
                   (SELECT to_jsonb(s) FROM pg_replication_slots s WHERE s.slot_name = %s)
            """,
            (slot,),
        ).fetchone()
    if row is None:  # a SELECT without FROM has its row
        raise AssertionError
    in_recovery, keep, names, lsn, found = row
    here = parse_lsn(lsn or "0/0")
    return ServerFacts(
        slot=None if found is None else _slot(found, here),
        keep_limit=_keep_limit(keep),
        synchronous=waits_for_us(names),
        in_recovery=in_recovery,
        lsn=here,
    )


def waits_for_us(standby_names: str) -> bool:
    """Whether synchronous_standby_names has our name or `*`. Case and quotes do not matter, as in the server."""
    names = {(quoted.replace('""', '"') or bare).lower() for quoted, bare in _NAMES.findall(standby_names)}
    return not names.isdisjoint({STANDBY_NAME, "*"})


def slot_warnings(facts: ServerFacts) -> list[str]:
    """Warnings about the slot, each with what to change."""
    warnings = []
    if facts.keep_limit is None:
        warnings.append(
            "max_slot_wal_keep_size is unlimited: were this receiver stopped for long, WAL would fill the server's "
            "disk. Next, on the server: ALTER SYSTEM SET max_slot_wal_keep_size = '10GB' (as much as its disk can "
            "spare), then SELECT pg_reload_conf()"
        )
    slot = facts.slot
    if slot is not None and slot.status == "unreserved":
        warnings.append(
            f"the slot {slot.name} is about to be lost: it needs more WAL than max_slot_wal_keep_size "
            f"({(facts.keep_limit or 0) // _MEGABYTE} MB) keeps. Next, on the server: raise it, then SELECT "
            "pg_reload_conf()"
        )
    return warnings


def slot_lost(slot: str, archived: int | None) -> SlotLostError:
    """The error for a slot that the server has invalidated. `archived`: the LSN where the archive ends."""
    reach = f" The archive ends at {format_lsn(archived)}." if archived else ""
    return SlotLostError(
        f"The server invalidated the replication slot {slot}: without a receiver, the WAL it kept exceeded "
        f"max_slot_wal_keep_size.{reach}",
        detail="The archive is intact; the server may have removed WAL that follows it.",
        hint="run `tmi-ops wal stream --accept-gap`: it creates the slot again and continues with the WAL that the "
        "server still has; if it reports a gap, take a base backup at once (`tmi-ops backup base`), because moments in "
        "the gap cannot be recovered to. Then raise max_slot_wal_keep_size",
    )


def wal_gone(segment: Segment) -> WalGoneError:
    """The error for the next WAL that the archive needs and the server no longer has."""
    return WalGoneError(
        f"The server has removed WAL that the archive lacks: from {segment.name} ({format_lsn(segment.start)}) on.",
        detail="The archive is intact, and nothing was skipped.",
        hint="if another archive has these segments, add them with `tmi-ops wal push`. Otherwise continue after the "
        "gap with `tmi-ops wal stream --accept-gap` and take a base backup at once (`tmi-ops backup base`), because "
        "moments in the gap cannot be recovered to",
    )


def _slot(found: dict[str, Any], here: int) -> SlotFacts:
    restart = parse_lsn(found["restart_lsn"]) if found.get("restart_lsn") else None
    return SlotFacts(
        name=found["slot_name"],
        active=found["active"],
        restart_lsn=restart,
        status=found.get("wal_status"),
        left=found.get("safe_wal_size"),
        kept=None if restart is None else max(0, here - restart),
    )


def _keep_limit(setting: str | None) -> int | None:
    size = shown_size(setting or "-1")
    return None if size < 0 else size
