"""What physical backups and the WAL archive need of the server."""

from __future__ import annotations

from datetime import timedelta

from tmi_ops.checks.finding import Answer, critical, fine, warning
from tmi_ops.diagnosis.chain import Link
from tmi_ops.diagnosis.finding import Area
from tmi_ops.diagnosis.patient import Patient
from tmi_ops.diagnosis.roles import right_role
from tmi_ops.diagnosis.sql import RELOAD, RESTART
from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.replication import connect_replication
from tmi_ops.postgres.rights import lacking
from tmi_ops.settings import PostgresSettings, Purpose
from tmi_ops.settings.purposes import Rights
from tmi_ops.wal.slot import SHARED_SLOT, read_our_server, slot_name
from tmi_ops.words import size_words

_MEGABYTE = 1 << 20
# Above this RPO daily backups may keep the promise without WAL.
_DAILY = timedelta(hours=24)
# A base backup uses two walsenders, receiving WAL one.
_NEEDED_SENDERS = 3


def look_at_wal_level(patient: Patient) -> Answer:
    level, changed = patient.ask("SELECT setting, pending_restart FROM pg_settings WHERE name = 'wal_level'")
    if level in ("replica", "logical"):
        return fine(f"wal_level = {level}")
    if changed:
        return critical(
            f"wal_level = {level}, and changed in the configuration",
            "the server has not been restarted since wal_level was changed",
            RESTART,
        )
    return critical(
        f"wal_level = {level}",
        "WAL of this level is enough for crash recovery alone: no base backup and no archive can be made of it",
        "ALTER SYSTEM SET wal_level = 'replica';",
        "ALTER SYSTEM SET max_wal_senders = 10;",
        RESTART,
    )


def look_at_senders(patient: Patient) -> Answer:
    most, used = patient.ask(
        "SELECT current_setting('max_wal_senders')::int, "
        "(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender')::int"
    )
    seen = f"{used} of max_wal_senders = {most} in use"
    raise_it = f"ALTER SYSTEM SET max_wal_senders = {max(10, most + 5)};"
    if most == 0:
        return critical(seen, "the server sends no WAL to anybody (max_wal_senders = 0)", raise_it, RESTART)
    if used >= most:
        return critical(
            seen,
            "every walsender is taken by standbys and other receivers, so no backup can begin",
            "SELECT pid, application_name, client_addr, state FROM pg_stat_replication;  -- who they are",
            raise_it,
            RESTART,
        )
    if most - used < _NEEDED_SENDERS and used + _NEEDED_SENDERS > most:
        return warning(
            seen, "a base backup takes two and receiving WAL one: they will not fit at once", raise_it, RESTART
        )
    return fine(seen)


def look_at_slots(patient: Patient) -> Answer:
    most, used, ours, idle = patient.ask(
        "SELECT current_setting('max_replication_slots')::int, count(*)::int, "
        "coalesce(bool_or(slot_name IN (%s, %s)), false), "
        "array_agg(slot_name::text) FILTER (WHERE NOT active AND slot_name NOT IN (%s, %s)) FROM pg_replication_slots",
        *(slot_name(patient.settings), SHARED_SLOT) * 2,
    )
    seen = f"{used} of max_replication_slots = {most} in use"
    if used < most:
        return fine(seen)
    # A base backup keeps its WAL with a temporary slot, so a full house is bad even where ours exists.
    unused = ", ".join(idle or ()) or "none"
    return critical(
        seen,
        ("our slot has its place, but a base backup finds none" if ours else "there is no place for ours")
        + f"; slots that nobody uses now: {unused}",
        *(f"SELECT pg_drop_replication_slot('{name}');  -- if its receiver is gone for good" for name in idle or ()),
        f"ALTER SYSTEM SET max_replication_slots = {max(10, most + 5)};",
        RESTART,
    )


def look_at_slot(patient: Patient) -> Answer:
    """Our own slot: whether what the archive lacks is still kept for it."""
    facts = read_our_server(patient.settings)
    slot = facts.slot
    limit = "without limit" if facts.keep_limit is None else f"at most {size_words(facts.keep_limit)}"
    if slot is None:
        return _without_slot(patient)
    kept = f"{size_words(slot.kept or 0)} of WAL kept for it, {limit}"
    if slot.status == "lost":
        return critical(
            f"the server has given up the slot {slot.name}",
            "nobody received for so long that its WAL exceeded max_slot_wal_keep_size: the archive has a gap",
            "tmi-ops wal stream --accept-gap  # makes the slot anew and goes on with what is left",
            "tmi-ops backup base  # at once: moments within the gap cannot be recovered",
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
            f"the slot {slot.name} is {'in use' if slot.active else 'not in use'}; {kept}",
            "were the receiver stopped for long, WAL would fill the server's disk and stop the database",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB';  -- as much as the server's disk can spare",
            RELOAD,
        )
    return fine(f"{slot.name} is {'being received' if slot.active else 'not being received now'}; {kept}")


def _without_slot(patient: Patient) -> Answer:
    seen = f"no slot {slot_name(patient.settings)}: WAL is not archived from here"
    rpo = patient.settings.objectives.rpo
    if rpo >= _DAILY:
        return fine(f"{seen}, and the RPO of {_hours(rpo)} does not need it")
    return warning(
        seen,
        f"between two backups nothing is kept, so the RPO of {_hours(rpo)} cannot be held",
        "tmi-ops wal stream  # as a service; makes the slot",
    )


def _hours(duration: timedelta) -> str:
    minutes = duration // timedelta(minutes=1)
    return f"{minutes // 60} h" if minutes % 60 == 0 else f"{minutes} min"


def look_at_replication(patient: Patient) -> Answer:
    """Log in as whoever takes base backups and receives WAL: pg_hba.conf has lines of its own for that, and the role a
    right."""
    logins = {patient.login_for(purpose).user: purpose for purpose in (Purpose.RECEIVER, Purpose.BACKUP)}
    for user, purpose in logins.items():
        broken = _may_not_replicate(patient, user, purpose) or _no_replication(patient.login_for(purpose))
        if broken is not None:
            return broken
    return fine(f"{' and '.join(logins)} may receive WAL from here")


def _may_not_replicate(patient: Patient, user: str, purpose: Purpose) -> Answer | None:
    missing = lacking(patient.server, user, Rights(replication=True))
    if not missing:
        return None
    return critical(
        f"{user} lacks REPLICATION",
        "base backups and WAL are given to roles with the attribute REPLICATION only",
        *right_role(patient, purpose, "as a superuser:", *(lack.statement for lack in missing)),
    )


def _no_replication(login: PostgresSettings) -> Answer | None:
    try:
        with connect_replication(login):
            return None
    except DatabaseError as error:
        if "unsupported startup parameter" in error.message:
            return critical(
                error.message,
                f"what answers at {login.host}:{login.port} is a connection pooler (PgBouncer says so), which "
                "passes no replication on; a pool per transaction would also break the snapshot of a dump",
                "set POSTGRES_HOST and POSTGRES_PORT to the PostgreSQL server itself, for tmi_ops alone",
            )
        if "pg_hba.conf" not in str(error):
            return critical(error.message, f"the server refuses {login.user} a replication connection", error.hint)
        line = error.hint.rpartition(": ")[2]
        return critical(
            error.message,
            "no line of pg_hba.conf lets this role in for replication; `all` in the database column does not cover it",
            "add this line to pg_hba.conf on the server:",
            line,
            RELOAD,
        )


def look_at_archiver(patient: Patient) -> Answer:
    """The server's own archiving, beside ours: where it fails, WAL piles up until the disk is full."""
    mode, command, library = patient.ask(
        "SELECT current_setting('archive_mode'), current_setting('archive_command'), "
        "coalesce(current_setting('archive_library', true), '')"
    )
    if mode == "off":
        return fine("archive_mode = off: WAL goes to the store by the slot")
    if command in ("", "(disabled)") and not library:
        return critical(
            f"archive_mode = {mode}, and neither archive_command nor archive_library is set",
            "the server keeps every WAL segment until somebody archives it: its disk fills up",
            "ALTER SYSTEM SET archive_command = '/bin/true';  -- where nobody else archives: the slot does the work",
            RELOAD,
            "ALTER SYSTEM SET archive_mode = off;  -- at the next restart, instead",
        )
    failing, name, since, count = patient.ask(
        "SELECT coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false), last_failed_wal, "
        "to_char(last_failed_time, 'YYYY-MM-DD HH24:MI:SS'), failed_count FROM pg_stat_archiver"
    )
    if failing:
        how = library or command
        return critical(
            f"archiving fails: {name} last at {since}, {count} times in all",
            f"the server's archiver ({how}) cannot put WAL away, so it piles up in pg_wal until the disk is full",
            "run it by hand on the server, as its user, to see what it says (%p: pg_wal/" + f"{name}, %f: {name}):",
            how,
            "ALTER SYSTEM SET archive_command = '/bin/true';  -- only where tmi-ops wal stream archives already",
            RELOAD,
        )
    return fine(f"archive_mode = {mode}, and the archiver does its work")


WAL_LINKS = (
    Link("wal-level", "wal_level", Area.WAL, look_at_wal_level, ("version",)),
    Link("wal-senders", "walsenders", Area.WAL, look_at_senders, ("wal-level",)),
    Link("replication-slots", "replication slots", Area.WAL, look_at_slots, ("wal-level",)),
    Link("replication", "logging in for replication", Area.WAL, look_at_replication, ("wal-senders",)),
    Link("slot", "our replication slot", Area.WAL, look_at_slot, ("database", "wal-level")),
    Link("archiver", "the server's archiver", Area.WAL, look_at_archiver, ("version",)),
)
