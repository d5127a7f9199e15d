"""Checks of what base backups and the WAL archive need from the server."""

from __future__ import annotations

from datetime import timedelta

from tmi_ops.checks.finding import Answer, critical, fine, warning
from tmi_ops.diagnosis.chain import Link
from tmi_ops.diagnosis.context import DiagnosisContext
from tmi_ops.diagnosis.finding import Area
from tmi_ops.diagnosis.roles import right_role
from tmi_ops.diagnosis.sql import RELOAD, RESTART
from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.hba import REPLICATION, hba_refusal
from tmi_ops.postgres.replication import connect_replication
from tmi_ops.postgres.rights import lacking
from tmi_ops.settings import PostgresSettings, Purpose
from tmi_ops.settings.purposes import Rights
from tmi_ops.text import format_size
from tmi_ops.wal.slot import SHARED_SLOT, read_our_server, slot_name

_MEGABYTE = 1 << 20
# From this RPO on, daily backups may meet it without WAL.
_DAILY = timedelta(hours=24)
# A base backup uses two walsenders, receiving WAL one.
_NEEDED_SENDERS = 3


def look_at_wal_level(context: DiagnosisContext) -> Answer:
    level, changed = context.ask("SELECT setting, pending_restart FROM pg_settings WHERE name = 'wal_level'")
    if level in ("replica", "logical"):
        return fine(f"wal_level = {level}")
    if changed:
        return critical(
            f"wal_level = {level}, but the configuration has another value",
            "the server has not been restarted since wal_level was changed",
            RESTART,
        )
    return critical(
        f"wal_level = {level}",
        "WAL of this level is enough for crash recovery only, not for base backups or a WAL archive",
        "ALTER SYSTEM SET wal_level = 'replica';",
        "ALTER SYSTEM SET max_wal_senders = 10;",
        RESTART,
    )


def look_at_senders(context: DiagnosisContext) -> Answer:
    most, used = context.ask(
        "SELECT current_setting('max_wal_senders')::int, "
        "(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender')::int"
    )
    seen = f"{used} of max_wal_senders = {most} in use"
    raise_it = f"ALTER SYSTEM SET max_wal_senders = {max(10, most + 5)};"
    if most == 0:
        return critical(seen, "the server sends WAL to nobody (max_wal_senders = 0)", raise_it, RESTART)
    if used >= most:
        return critical(
            seen,
            "standbys and other receivers use every walsender, so no base backup can start",
            "SELECT pid, application_name, client_addr, state FROM pg_stat_replication;  -- shows them",
            raise_it,
            RESTART,
        )
    if most - used < _NEEDED_SENDERS and used + _NEEDED_SENDERS > most:
        return warning(
            seen, "a base backup needs two and receiving WAL one, so both cannot run at once", raise_it, RESTART
        )
    return fine(seen)


def look_at_slots(context: DiagnosisContext) -> Answer:
    most, used, ours, idle = context.ask(
        "SELECT current_setting('max_replication_slots')::int, count(*)::int, "
        "coalesce(bool_or(slot_name IN (%s, %s)), false), "
        "array_agg(slot_name::text) FILTER (WHERE NOT active AND slot_name NOT IN (%s, %s)) FROM pg_replication_slots",
        *(slot_name(context.settings), SHARED_SLOT) * 2,
    )
    seen = f"{used} of max_replication_slots = {most} in use"
    if used < most:
        return fine(seen)
    # A base backup needs a temporary slot, so it fails even if our slot exists.
    unused = ", ".join(idle or ()) or "none"
    return critical(
        seen,
        ("our slot exists, but a base backup cannot create its own" if ours else "our slot cannot be created")
        + f"; inactive slots: {unused}",
        *(f"SELECT pg_drop_replication_slot('{name}');  -- if its receiver is gone for good" for name in idle or ()),
        f"ALTER SYSTEM SET max_replication_slots = {max(10, most + 5)};",
        RESTART,
    )


def look_at_slot(context: DiagnosisContext) -> Answer:
    """Our own slot: whether the server still retains the WAL that the archive lacks."""
    facts = read_our_server(context.settings)
    slot = facts.slot
    limit = "no limit" if facts.keep_limit is None else f"limit {format_size(facts.keep_limit)}"
    if slot is None:
        return _without_slot(context)
    kept = f"it retains {format_size(slot.kept or 0)} of WAL ({limit})"
    if slot.status == "lost":
        return critical(
            f"the slot {slot.name} is lost",
            "the receiver was down so long that the slot's WAL exceeded max_slot_wal_keep_size: the archive has a gap",
            "tmi-ops wal stream --accept-gap  # creates the slot again and continues with the WAL that is left",
            "tmi-ops backup base  # at once: times within the gap cannot be recovered to",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB';  -- as much as the server's disk can spare",
            RELOAD,
        )
    if slot.status == "unreserved":
        return critical(
            f"the slot {slot.name} is about to be lost; {kept}",
            "the receiver is behind by more than max_slot_wal_keep_size",
            f"ALTER SYSTEM SET max_slot_wal_keep_size = '{max(1, 4 * (slot.kept or 0) // _MEGABYTE)}MB';",
            RELOAD,
            "tmi-ops wal stream --catch-up",
        )
    if facts.keep_limit is None:
        return warning(
            f"the slot {slot.name} is {'active' if slot.active else 'inactive'}; {kept}",
            "if the receiver stops for long, WAL fills the server's disk and the database stops",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB';  -- as much as the server's disk can spare",
            RELOAD,
        )
    return fine(f"{slot.name} is {'active' if slot.active else 'inactive'}; {kept}")


def _without_slot(context: DiagnosisContext) -> Answer:
    seen = f"there is no slot {slot_name(context.settings)}: no receiver archives WAL"
    rpo = context.settings.objectives.rpo
    if rpo >= _DAILY:
        return fine(f"{seen}, and the RPO of {_hours(rpo)} does not need it")
    return warning(
        seen,
        f"changes between two backups are lost with the server, so the RPO of {_hours(rpo)} cannot be met",
        "tmi-ops wal stream  # as a service; creates the slot",
    )


def _hours(duration: timedelta) -> str:
    minutes = duration // timedelta(minutes=1)
    return f"{minutes // 60} h" if minutes % 60 == 0 else f"{minutes} min"


def look_at_replication(context: DiagnosisContext) -> Answer:
    """Whether the roles that take base backups and receive WAL can connect for replication: this needs its own line in
    pg_hba.conf, and the REPLICATION attribute."""
    logins = {context.login_for(purpose).user: purpose for purpose in (Purpose.RECEIVER, Purpose.BACKUP)}
    for user, purpose in logins.items():
        broken = _may_not_replicate(context, user, purpose) or _no_replication(context.login_for(purpose))
        if broken is not None:
            return broken
    return fine(f"{' and '.join(logins)} may receive WAL from here")


def _may_not_replicate(context: DiagnosisContext, user: str, purpose: Purpose) -> Answer | None:
    missing = lacking(context.server, user, Rights(replication=True))
    if not missing:
        return None
    return critical(
        f"{user} lacks REPLICATION",
        "only roles with the attribute REPLICATION can take base backups and receive WAL",
        *right_role(context, purpose, "as a superuser:", *(lack.statement for lack in missing)),
    )


def _no_replication(login: PostgresSettings) -> Answer | None:
    try:
        with connect_replication(login):
            return None
    except DatabaseError as error:
        if "unsupported startup parameter" in error.message:
            return critical(
                error.message,
                f"what answers at {login.host}:{login.port} is a connection pooler (the message is PgBouncer's), which "
                "does not pass replication on; transaction pooling would also break the snapshot of a dump",
                "set POSTGRES_HOST and POSTGRES_PORT for tmi_ops to the PostgreSQL server itself",
            )
        refused = hba_refusal(error.message, login.user, REPLICATION)
        if refused is None:
            return critical(error.message, f"the server refuses {login.user} a replication connection", error.hint)
        return critical(
            error.message,
            "no line of pg_hba.conf admits this role for replication; `all` in the database column does not include it",
            "add this line to pg_hba.conf on the server:",
            refused.line,
            RELOAD,
        )


def look_at_archiver(context: DiagnosisContext) -> Answer:
    """The server's own archiving: if it fails, WAL piles up until the disk is full."""
    mode, command, library = context.ask(
        "SELECT current_setting('archive_mode'), current_setting('archive_command'), "
        "coalesce(current_setting('archive_library', true), '')"
    )
    if mode == "off":
        return fine("archive_mode = off: the receiver archives WAL from the slot")
    if command in ("", "(disabled)") and not library:
        return critical(
            f"archive_mode = {mode}, but neither archive_command nor archive_library is set",
            "the server keeps every WAL segment until it is archived, so its disk fills up",
            "ALTER SYSTEM SET archive_command = '/bin/true';  -- only if tmi-ops wal stream archives from the slot",
            RELOAD,
            "ALTER SYSTEM SET archive_mode = off;  -- instead, at the next restart",
        )
    failing, name, since, count = context.ask(
        "SELECT coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false), last_failed_wal, "
        "to_char(last_failed_time, 'YYYY-MM-DD HH24:MI:SS'), failed_count FROM pg_stat_archiver"
    )
    if failing:
        how = library or command
        return critical(
            f"archiving of segment {name} failed at {since}, the latest of {count} failures",
            f"the server's archiver ({how}) fails, so WAL piles up in pg_wal until the disk is full",
            "run it by hand on the server, as its user, to see its error (%p: pg_wal/" + f"{name}, %f: {name}):",
            how,
            "ALTER SYSTEM SET archive_command = '/bin/true';  -- only if tmi-ops wal stream archives already",
            RELOAD,
        )
    return fine(f"archive_mode = {mode}, and archiving works")


WAL_LINKS = (
    Link("wal-level", "wal_level", Area.WAL, look_at_wal_level, ("version",)),
    Link("wal-senders", "walsenders", Area.WAL, look_at_senders, ("wal-level",)),
    Link("replication-slots", "replication slots", Area.WAL, look_at_slots, ("wal-level",)),
    Link("replication", "replication connections", Area.WAL, look_at_replication, ("wal-senders",)),
    Link("slot", "our replication slot", Area.WAL, look_at_slot, ("database", "wal-level")),
    Link("archiver", "the server's archiver", Area.WAL, look_at_archiver, ("version",)),
)
