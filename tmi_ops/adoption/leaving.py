"""`tmi-ops uninit`: finds and removes the slot, the heartbeat schema, the roles and the units. Backups are kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tmi_ops.adoption.roles import created_roles
from tmi_ops.adoption.services import SYSTEM_UNITS, is_enabled, unit_files
from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.connections import connect
from tmi_ops.settings import Settings
from tmi_ops.wal.slot import read_our_server, slot_name

SCHEMA = "tmi_ops"
# The only table that the heartbeat creates; the schema is not dropped if it has others.
TABLE = "heartbeat"
_OURS = (TABLE,)
_NOUNS = {"slot": "replication slot", "schema": "heartbeat schema", "role": "role"}


@dataclass(frozen=True)
class Leftover:
    """A slot, schema or role by its name, a unit by its file.

    `in_use`: a receiver uses the slot, systemd has the unit.
    """

    kind: str
    name: str
    in_use: bool = False

    @property
    def says(self) -> str:
        if self.kind == "unit":
            return f"remove {self.name}{' (installed in systemd)' if self.in_use else ''}"
        return f"drop the {_NOUNS[self.kind]} {self.name}{' (in use by a receiver)' if self.in_use else ''}"


def plan_leaving(settings: Settings) -> tuple[Leftover, ...]:
    """Raises DatabaseError: the server cannot be queried."""
    found = []
    slot = read_our_server(settings).slot
    if slot is not None:
        found.append(Leftover("slot", slot.name or slot_name(settings), slot.active))
    with connect(settings.postgres) as connection:
        if _only_ours(connection):
            found.append(Leftover("schema", SCHEMA))
        found.extend(Leftover("role", name) for name in created_roles(connection))
    found.extend(Leftover("unit", str(file), is_enabled(file)) for file in unit_files(settings))
    return tuple(found)


def leave(settings: Settings, plan: Sequence[Leftover]) -> None:
    """Remove what the plan names. The schema is kept if it contains, or is used by, anything that is not ours.

    Raises:
        RecoveryError: a receiver uses the slot or systemd has a unit, and nothing was removed; or the schema was kept.
        DatabaseError: the server refused.
    """
    enabled = [Path(one.name).name for one in plan if one.kind == "unit" and one.in_use]
    if enabled:
        raise RecoveryError(
            f"{' and '.join(enabled)} {'is' if len(enabled) == 1 else 'are'} installed in systemd.",
            hint=f"run `{_disabling(enabled)}`",
            code=Code.STILL_IN_USE,
        )
    busy = [one.name for one in plan if one.in_use]
    if busy:
        raise RecoveryError(
            f"A receiver uses the slot {busy[0]}.",
            hint="stop `tmi-ops wal stream`",
            code=Code.STILL_IN_USE,
        )
    with connect(settings.postgres) as connection:
        for one in plan:
            if one.kind == "slot":
                connection.execute("SELECT pg_drop_replication_slot(%s)", (one.name,))
            elif one.kind == "schema":
                _drop_schema(connection, one.name)
            elif one.kind == "role":
                _drop_role(connection, one.name)
    for one in plan:
        if one.kind == "unit":
            Path(one.name).unlink(missing_ok=True)


def _disabling(units: Sequence[str]) -> str:
    """The shell command that removes them from systemd, whether links or copies."""
    names = " ".join(units)
    files = " ".join(str(SYSTEM_UNITS / name) for name in units)
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{sudo}systemctl disable --now {names}; {sudo}rm -f {files}; {sudo}systemctl daemon-reload"


def _drop_schema(connection: psycopg.Connection[Any], name: str) -> None:
    schema = sql.Identifier(name)
    try:
        with connection.transaction():
            connection.execute(sql.SQL("DROP TABLE {}.{} RESTRICT").format(schema, sql.Identifier(TABLE)))
            connection.execute(sql.SQL("DROP SCHEMA {} RESTRICT").format(schema))
    except psycopg.errors.DependentObjectsStillExist as error:
        raise _still_in_use(
            f"schema {name}",
            error,
            detail="The slot was dropped; nothing in the schema was removed.",
            hint=f"move these objects elsewhere, then run `DROP TABLE {name}.{TABLE}; DROP SCHEMA {name};`",
        ) from None


def _drop_role(connection: psycopg.Connection[Any], name: str) -> None:
    """A role that owns or was granted something is kept: whoever gave it that decides."""
    try:
        connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))
    except psycopg.errors.DependentObjectsStillExist as error:
        role = sql.Identifier(name).as_string(connection)
        raise _still_in_use(
            f"role {name}",
            error,
            detail="The slot and the heartbeat schema were dropped.",
            hint=f"revoke these privileges or move these objects, then run `DROP ROLE {role};`",
        ) from None


def _still_in_use(what: str, error: psycopg.Error, *, detail: str, hint: str) -> RecoveryError:
    others = (error.diag.message_detail or "").replace("\n", "; ")
    return RecoveryError(
        f"The {what} was kept, because other objects depend on it. {others}",
        detail=detail,
        hint=hint,
        code=Code.STILL_IN_USE,
    )


def _only_ours(connection: psycopg.Connection[Any]) -> bool:
    rows = connection.execute(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')",
        (SCHEMA,),
    ).fetchall()
    return bool(rows) and {name for (name,) in rows} <= set(_OURS)
