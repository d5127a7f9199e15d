"""Restores a logical backup into a database of a live server, without losing what was there.

The copy is restored beside the existing database and verified against the backup's fingerprints. Only then, and only
with `replace`, the two exchange names: the old database is kept under another name until the user drops it.
"""

from __future__ import annotations

import re
import secrets
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from tmi_ops.backup.archive.files import read_toc
from tmi_ops.backup.archive.toc import Toc
from tmi_ops.error_codes import Code
from tmi_ops.errors import DatabaseError, ProgramError, RecoveryError
from tmi_ops.postgres.cluster import require_free_space
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs, programs_at_least
from tmi_ops.postgres.rights import require_rights
from tmi_ops.postgres.versions import major_of
from tmi_ops.progress import Report
from tmi_ops.recovery.compare import Comparison, compare_with_source
from tmi_ops.recovery.exchange import MAX_NAME_BYTES, derived_name, exchange_names
from tmi_ops.recovery.fetch import fetch_backup
from tmi_ops.recovery.least_role import (
    give_owners_and_rights,
    is_superuser,
    loading_role,
    needs_superuser,
    superuser_owners,
    trusted_extensions,
)
from tmi_ops.recovery.load import load_archive, load_dump
from tmi_ops.recovery.new_database import create_database, drop_database
from tmi_ops.recovery.requirements import missing_at, require_extensions, requirements_of, tablespaces_of
from tmi_ops.recovery.roles import drop_roles, restore_roles, without_power
from tmi_ops.recovery.surroundings import apply_properties, read_surroundings
from tmi_ops.schema.dialect import quote
from tmi_ops.settings import PostgresSettings, Purpose, Settings
from tmi_ops.store.manifest import Manifest
from tmi_ops.store.objects import ObjectStore

_NAMED = 5
_ARCHIVES = ("custom", "directory")
_LACKS_RIGHTS = re.compile(r"permission denied|must be (?:superuser|owner|able)")


@dataclass(frozen=True)
class RestoreChoices:
    """The user's choices.

    `accept_differences`: accept a copy that differs from its source; the differences are listed. `tablespaces`: restore
    objects to tablespaces of the same names. `powerful_roles`: created roles may be superusers, replicate, bypass row
    security or be members of PostgreSQL's own roles, as on the source. `as_superuser`: load the dump with all rights of
    the connecting role, even if it is a superuser.
    """

    accept_differences: bool = False
    tablespaces: bool = True
    powerful_roles: bool = False
    as_superuser: bool = False


@dataclass(frozen=True)
class RestorePlan:
    """What a restore will do.

    `keep_as`: new name of the existing database; None if there is none.
    `working_name`: name of the copy until it is verified.
    """

    manifest: Manifest
    server: str
    server_major: int
    database: str
    working_name: str
    keep_as: str | None
    sessions: int
    choices: RestoreChoices = RestoreChoices()

    @property
    def replaces(self) -> bool:
        return self.keep_as is not None


@dataclass(frozen=True)
class RestoreResult:
    """A restored and verified database, and the name under which the old one was kept."""

    database: str
    kept_as: str | None
    comparison: Comparison
    created_roles: tuple[str, ...]


def plan_restore(
    settings: Settings, manifest: Manifest, into: str, *, replace: bool, choices: RestoreChoices | None = None
) -> RestorePlan:
    """Plan a restore into the database `into`.

    Raises:
        RecoveryError: `into` exists and `replace` is not given, or the server is older than the backup.
        DatabaseError: the server could not be reached.
    """
    if not into or len(into.encode()) > MAX_NAME_BYTES:
        raise RecoveryError(f"{into!r} is not a valid database name: it must have 1 to {MAX_NAME_BYTES} bytes.")
    with connect(settings.postgres, "postgres") as connection:
        server_major = major_of(connection.info.server_version)
        backup_major = major_of(manifest.server_version_num)
        if server_major < backup_major:
            raise RecoveryError(
                f"The backup is of PostgreSQL {backup_major}; this server is older: PostgreSQL {server_major}.",
                hint=f"restore into a server of PostgreSQL {backup_major} or newer",
            )
        row = connection.execute(
            "SELECT (SELECT count(*) FROM pg_stat_activity a WHERE a.datname = d.datname)"
            " FROM pg_database d WHERE d.datname = %s",
            (into,),
        ).fetchone()
        if row is not None and replace:
            _require_owner(connection, into)
        require_rights(connection, settings.postgres.user, Purpose.RESTORER)
    if row is not None and not replace:
        raise RecoveryError(
            f"The database {into} already exists on {settings.postgres.host}:{settings.postgres.port}.",
            hint=f"choose another name, or add --replace, which keeps {into} under another name",
            code=Code.DATABASE_EXISTS,
        )
    stamp = datetime.now(UTC).strftime("%Y%m%d_%H%M%S")
    return RestorePlan(
        manifest=manifest,
        server=f"{settings.postgres.host}:{settings.postgres.port}",
        server_major=server_major,
        database=into,
        working_name=derived_name(into, f"restoring_{secrets.token_hex(3)}"),
        keep_as=derived_name(into, f"before_{stamp}") if row is not None else None,
        sessions=row[0] if row is not None else 0,
        choices=choices or RestoreChoices(),
    )


def _require_owner(connection: psycopg.Connection[Any], database: str) -> None:
    """Check now that the role owns the database, because renaming it is the last step."""
    row = connection.execute(
        "SELECT pg_get_userbyid(datdba), pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = %s", (database,)
    ).fetchone()
    if row is not None and not row[1]:
        raise DatabaseError(
            f"{database} belongs to {row[0]}, so {connection.info.user} cannot rename it to replace it.",
            hint=f"run as a superuser `GRANT {quote(row[0])} TO {quote(connection.info.user)}`; or use a new name",
            code=Code.NEEDS_SUPERUSER,
        )


def execute_restore(settings: Settings, store: ObjectStore, plan: RestorePlan, report: Report) -> RestoreResult:
    """Restore and verify the copy, then give it its name.

    Raises:
        IntegrityError, ObjectMissingError, ProgramError, RecoveryError: the copy could not be restored, or differs from
            the backup. The copy is dropped; the existing database is unchanged.
    """
    manifest = plan.manifest
    # Reading the dump needs programs of at least the dump's version; dumping the copy needs the server's.
    programs = programs_at_least(major_of(manifest.server_version_num), settings.pg_bindir)
    scratch_root = settings.home / "scratch"
    require_free_space(scratch_root, sum(item.plain_size for item in manifest.objects), "Fetching the backup")
    scratch_root.mkdir(parents=True, exist_ok=True)
    created: list[str] = []
    try:
        comparison = _restore_beside(settings, store, plan, programs, scratch_root, report, created)
        exchange_names(settings.postgres, plan.database, plan.working_name, plan.keep_as)
    except BaseException:
        _drop_copy(settings, plan.working_name, report)
        drop_roles(settings.postgres.model_copy(update={"database": "postgres"}), created, report)
        raise
    return RestoreResult(plan.database, plan.keep_as, comparison, tuple(created))


def _restore_beside(
    settings: Settings,
    store: ObjectStore,
    plan: RestorePlan,
    programs: Programs,
    scratch_root: Path,
    report: Report,
    created: list[str],
) -> Comparison:
    """Restore and compare. Created roles, which belong to the server and not to the copy, are added to `created`."""
    choices = plan.choices
    address = settings.postgres.model_copy(update={"database": plan.working_name})
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=scratch_root) as directory:
        fetched = fetch_backup(store, plan.manifest, Path(directory), report)
        surroundings = read_surroundings(fetched, report)
        server = settings.postgres.model_copy(update={"database": "postgres"})
        missing = missing_at(server, requirements_of(fetched, surroundings.database))
        require_extensions(missing)
        if missing.tablespaces and choices.tablespaces:
            raise _lacks_tablespaces(missing.tablespaces)
        least = is_superuser(server) and not choices.as_superuser
        toc = read_toc(fetched.dump) if fetched.manifest.format in _ARCHIVES else None
        if least:
            _require_ordinary(server, fetched.manifest.format, toc)
        roles = surroundings.roles if choices.powerful_roles else without_power(surroundings.roles)
        created.extend(restore_roles(server, roles, report).created)
        if not least and toc is not None:
            _require_superuser_owners(server, toc, created)
        create_database(
            settings.postgres,
            surroundings.database,
            plan.working_name,
            report,
            any_locale=choices.accept_differences,
        )
        if least and toc is not None:
            _load_by_ordinary_role(address, fetched.dump, toc, programs, report, tablespaces=choices.tablespaces)
        else:
            load_dump(address, fetched, programs, report, tablespaces=choices.tablespaces)
        apply_properties(address, surroundings.database, report)
        comparison = compare_with_source(
            address, fetched, programs_at_least(plan.server_major, settings.pg_bindir), report
        )
    if not comparison.equal and not choices.accept_differences:
        raise RecoveryError(
            f"The restored copy differs from the backup: {'; '.join(comparison.differences[:5])}.",
            detail=f"{plan.database} was not touched; the copy was dropped.",
            hint="choose another backup (`tmi-ops backups`) and verify it first, or accept this one with "
            "--accept-differences",
            code=Code.COPY_DIFFERS,
        )
    for difference in comparison.differences:
        report.note(f"Accepted difference: {difference}")
    return comparison


def _require_ordinary(server: PostgresSettings, dump_format: str, toc: Toc | None) -> None:
    """Refuse a dump that an ordinary role cannot load. `toc`: the archive's table of contents.

    Raises:
        RecoveryError: the message names what needs a superuser.
    """
    if toc is None:
        needed: tuple[str, ...] = (f"object owners, which the script of a {dump_format} dump sets itself",)
    else:
        needed = needs_superuser(toc, trusted_extensions(server))
    if needed:
        more = f" and {len(needed) - _NAMED} more" if len(needed) > _NAMED else ""
        raise RecoveryError(
            f"Only a superuser can load this backup: {', '.join(needed[:_NAMED])}{more}.",
            detail="Nothing was loaded.",
            hint="if you trust the owners of these objects, load it with the connecting role's rights: --as-superuser",
            code=Code.NEEDS_SUPERUSER,
        )


def _require_superuser_owners(server: PostgresSettings, toc: Toc, created: Collection[str]) -> None:
    """Refuse before the load what PostgreSQL would refuse at the end of it.

    Raises:
        RecoveryError: an owner must be a superuser, but is not one on this server.
    """
    owners = superuser_owners(toc)
    with connect(server) as connection:
        rows = connection.execute("SELECT rolname FROM pg_catalog.pg_roles WHERE rolsuper").fetchall()
    lacking = sorted(owners.keys() - {name for (name,) in rows})
    if lacking:
        objects = [item for owner in lacking for item in owners[owner]]
        existing = [quote(owner) for owner in lacking if owner not in created]
        steps = ["if you trust the backup's roles, use --powerful-roles"] if len(existing) < len(lacking) else []
        steps += [f"run as a superuser `ALTER ROLE {owner} SUPERUSER`" for owner in existing]
        raise RecoveryError(
            f"Only a superuser can own {', '.join(objects[:_NAMED])}, but on this server {', '.join(lacking)} "
            f"{'is not a superuser' if len(lacking) == 1 else 'are not superusers'}.",
            detail="Nothing was loaded.",
            hint="; ".join(steps),
            code=Code.NEEDS_SUPERUSER,
        )


def _load_by_ordinary_role(
    address: PostgresSettings, dump: Path, toc: Toc, programs: Programs, report: Report, *, tablespaces: bool
) -> None:
    used = tablespaces_of(toc.entries) if tablespaces else ()
    with loading_role(address, address.database, used) as loader:
        try:
            load_archive(loader, dump, programs, report, tablespaces=tablespaces, owners=False)
        except ProgramError as error:
            if _LACKS_RIGHTS.search(error.message) is not None:
                error.hint = "if you trust the backup, load it with the connecting role's rights: --as-superuser"
            raise
        give_owners_and_rights(address, toc)


def _drop_copy(settings: Settings, name: str, report: Report) -> None:
    """Drop the copy; a failure is only noted, so that it does not hide why the restore failed."""
    try:
        drop_database(settings.postgres, name)
    except DatabaseError as error:
        report.note(f'The copy {name} could not be dropped ({error.message}). Drop it yourself: DROP DATABASE "{name}"')


def _lacks_tablespaces(names: frozenset[str]) -> RecoveryError:
    listed = ", ".join(sorted(names))
    return RecoveryError(
        f"The backup needs tablespaces that this server lacks: {listed}.",
        hint="create them (`CREATE TABLESPACE NAME LOCATION 'DIRECTORY'`), or add --no-tablespaces to restore "
        "everything into the new database's default tablespace",
        code=Code.NOT_HERE,
    )
