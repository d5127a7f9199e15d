"""Replaces the damaged database on its own server: copy the recovered one there, compare it, swap the names."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tmi_ops.backup.dump import dump_command
from tmi_ops.backup.properties import read_properties
from tmi_ops.backup.snapshot import exported_snapshot
from tmi_ops.drill.copy import running_cluster
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.connections import connect, libpq_environment
from tmi_ops.postgres.programs import Programs, run_program
from tmi_ops.progress import Report
from tmi_ops.recovery.compare import compare_databases
from tmi_ops.recovery.exchange import allow_connections, exchange_names
from tmi_ops.recovery.load import RESTORE_JOBS
from tmi_ops.recovery.new_database import create_database, drop_database
from tmi_ops.recovery.surroundings import apply_properties
from tmi_ops.recovery.two_role_load import load_with_two_roles
from tmi_ops.runbooks.corruption.lost import answer_lost
from tmi_ops.runbooks.execution import Action, Work
from tmi_ops.runbooks.journal import Answer
from tmi_ops.runbooks.plan import Fact, Step
from tmi_ops.runbooks.steps.fence import gate_of
from tmi_ops.runbooks.steps.place import clear, tidy
from tmi_ops.runbooks.steps.recover import RecoveredCluster, cluster_programs, request_of
from tmi_ops.settings import PostgresSettings


def copy_database(
    source: PostgresSettings, target: PostgresSettings, directory: Path, programs: Programs, report: Report
) -> None:
    """Dump `source`, a database that nobody writes to, and restore it as the database `target`.

    Functions in CHECKs, indexes and views belong to table owners, so they do not run as a superuser.

    Args:
        directory: for the dump, on this machine. Its content is replaced, as is an existing `target`.

    Raises:
        DatabaseError, ProgramError: the dump or the restore failed. A partial `target` stays.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    dump = directory / "dump"
    with exported_snapshot(source) as snapshot, report.phase("dump", total=1, unit="steps") as phase:
        encoding = snapshot.server.encoding
        argv = dump_command(programs, "directory", snapshot.name, encoding, directory=dump, jobs=RESTORE_JOBS)
        run_program(argv, env=libpq_environment(source, server_major=snapshot.server.major))
        properties = read_properties(snapshot.connection)
        phase.advance(1)
    drop_database(target, target.database)
    create_database(target, properties, target.database, report)
    load_with_two_roles(target, dump, programs, report)
    apply_properties(target, properties, report)
    shutil.rmtree(directory, ignore_errors=True)


COMPARED = "Copy equals the recovered database"


class Names(Fact):
    """`working`: the copy's name until the swap; `aside`: the damaged database's name after it."""

    database: str
    working: str
    aside: str


def names_of(work: Work) -> Names:
    return Names.model_validate(work.journal.plan.requests["names"])


def in_place_steps(names: Names, *, counted: bool) -> tuple[Step, ...]:
    """`counted`: the damaged database can be read while the fence is up."""
    lost = ", and count lost rows" if counted else ""
    return (
        Step(
            name="load",
            does=f"copy the recovered database to the server as {names.working}",
            way_back=f"drop {names.working}",
        ),
        Step(name="validate", does=f"compare every row and definition of the copy{lost}"),
        Step(
            name="swap",
            does=f"rename the damaged database to {names.aside}, which is kept, and the copy to {names.database}",
            effect="irreversible",
            way_back="swap the names again, as long as the fence is up",
        ),
    )


@contextmanager
def _recovered_database(work: Work) -> Iterator[PostgresSettings]:
    """The recovered database in its cluster, which runs for the length of a `with` block."""
    request, cluster = request_of(work), work.known(RecoveredCluster)
    with running_cluster(tidy(request.place), cluster.role, cluster_programs(work)) as address:
        yield address.model_copy(update={"database": request.database})


def _target(work: Work) -> PostgresSettings:
    return work.settings.postgres.model_copy(update={"database": names_of(work).working})


def _load(work: Work) -> None:
    names, target = names_of(work), _target(work)
    with _recovered_database(work) as source:
        copy_database(source, target, work.directory / "dump", cluster_programs(work), work.report)
    work.say(f"Copied to {names.working}, which is not in service yet.")


def _unload(work: Work) -> None:
    names = names_of(work)
    with connect(work.settings.postgres, "postgres") as connection:
        if (names.working, False) in _present(connection, names):
            allow_connections(connection, names.working, allowed=True)
    drop_database(work.settings.postgres, names.working)
    shutil.rmtree(work.directory / "dump", ignore_errors=True)


def _validate(work: Work) -> None:
    names, target = names_of(work), _target(work)
    with _recovered_database(work) as source:
        comparison = compare_databases(source, target, cluster_programs(work), work.report)
    if not comparison.equal:
        raise RecoveryError(
            f"The copy on the server differs from the recovered database: {'; '.join(comparison.differences[:5])}.",
            detail=f"{names.database} was not changed.",
        )
    detail = f"{len(comparison.fingerprints)} tables and {comparison.rows:,} rows are equal."
    work.answer(Answer(title=COMPARED, outcome="passed", detail=detail))
    work.say(detail)
    answer_lost(work, target)


def _swap(work: Work) -> None:
    names, closed = names_of(work), not gate_of(work).roles
    work.leave(
        f"Copy what you need from the damaged database, then drop it: DROP DATABASE {names.aside}. While it exists, "
        "base backups of this server fail if its pages are damaged."
    )
    with connect(work.settings.postgres, "postgres") as connection:
        present = {name for name, _ in _present(connection, names)}
        if names.working not in present and {names.database, names.aside} <= present:
            allow_connections(connection, names.aside, allowed=True)
            work.say(f"The names were already swapped; the damaged database is {names.aside}.")
            return
    exchange_names(work.settings.postgres, names.database, names.working, names.aside, closed=closed)
    work.say(f"The damaged database is kept as {names.aside}.")


def _swap_back(work: Work) -> None:
    names, closed = names_of(work), not gate_of(work).roles
    with connect(work.settings.postgres, "postgres") as connection:
        present = {name for name, _ in _present(connection, names)}
    if names.aside in present:
        exchange_names(work.settings.postgres, names.database, names.aside, names.working, closed=closed)


def _present(connection: psycopg.Connection[Any], names: Names) -> set[tuple[str, bool]]:
    """Which of the three databases exist, and whether they accept connections."""
    rows = connection.execute(
        "SELECT datname, datallowconn FROM pg_database WHERE datname = ANY(%s)",
        ([names.database, names.working, names.aside],),
    ).fetchall()
    return {(name, allowed) for name, allowed in rows}


def _clear_up(work: Work) -> None:
    clear(work, request_of(work).place)
    shutil.rmtree(work.directory / "dump", ignore_errors=True)
    work.say("Removed the recovered cluster from this machine; its database is in service.")


CLEAR_UP_STEP = Step(name="clear up", does="remove the recovered cluster from this machine")
LOAD = Action(_load, _unload, needs=("recover",))
VALIDATE = Action(_validate, needs=("recover",))
SWAP = Action(_swap, _swap_back)
CLEAR_UP = Action(_clear_up)
