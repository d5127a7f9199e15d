"""The plan of the recovery from corruption, from facts of the server, the store and the environment."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import server_programs
from tmi_ops.postgres.rights import lacking
from tmi_ops.postgres.server import read_server
from tmi_ops.progress import Report
from tmi_ops.recovery.exchange import derived_name
from tmi_ops.recovery.point_in_time.clock import with_times
from tmi_ops.recovery.point_in_time.facts import RecoveryFacts, read_facts
from tmi_ops.recovery.point_in_time.planning import plan_recovery
from tmi_ops.recovery.point_in_time.target import Target
from tmi_ops.runbooks.application import Application, read_application
from tmi_ops.runbooks.corruption.in_place import CLEAR_UP_STEP, Names, in_place_steps
from tmi_ops.runbooks.corruption.lost import COUNT_STEP
from tmi_ops.runbooks.ends import base_ends, end_of_wal, gap_notes
from tmi_ops.runbooks.obstacles import fence_obstacles, key_obstacles, place_obstacles, room_obstacles, serve_obstacles
from tmi_ops.runbooks.plan import Obstacle, Plan, Step
from tmi_ops.runbooks.serving.steps import (
    ServeRequest,
    serve_notes,
    serve_steps,
    served_afterwards,
)
from tmi_ops.runbooks.steps import archive, cache, hold
from tmi_ops.runbooks.steps.fence import Gate, choose_gate, fence_step, lift_step
from tmi_ops.runbooks.steps.hold import RELEASE, Held
from tmi_ops.runbooks.steps.hooks import missing_start, missing_stop, start_steps, stop_steps
from tmi_ops.runbooks.steps.place import Place
from tmi_ops.runbooks.steps.recover import Moment, RecoverRequest
from tmi_ops.runbooks.unfinished import refuse_unfinished
from tmi_ops.settings import Purpose, Settings, variables_of
from tmi_ops.store.objects import ObjectStore
from tmi_ops.text import format_duration, format_size

RUNBOOK = "corruption"
PLACE = "recovered"
OLD_SERVER = (
    "The damaged server still runs, closed to the application, with its data unchanged. Copy what you need from it, "
    "then stop it."
)


@dataclass(frozen=True)
class CorruptionRequest:
    """The user's request.

    Args:
        moment: None: find the last good one.
        into: directory for a new cluster that takes over; None: swap the database on its own server.
        serve: for the new cluster.
        limit: how many restores the search may use.
        owner: the account that will run the new cluster; None: one that can.
        with_cache: reconcile the cache, if there is one.
    """

    moment: Moment | None = None
    backup: str | None = None
    into: Path | None = None
    serve: ServeRequest | None = None
    limit: int = 8
    with_cache: bool = True
    owner: str | None = None


@dataclass(frozen=True)
class CorruptionFacts:
    """Facts of the server, the store and the environment."""

    recovery: RecoveryFacts
    gate: Gate
    application: Application
    subject: str
    damaged_size: int
    notes: tuple[str, ...] = ()
    obstacles: tuple[Obstacle, ...] = ()


def prepare_corruption(settings: Settings, store: ObjectStore, request: CorruptionRequest, report: Report) -> Plan:
    """Read the facts and make the plan. Changes nothing.

    Raises:
        RecoveryError: the database or a base backup of its cluster is missing, or an earlier run is not finished.
        DatabaseError: the server does not answer; use `tmi-ops recover everything` then.
        StoreError: the store failed.
    """
    refuse_unfinished(settings, store, (RUNBOOK,), report)
    return plan_corruption(settings, read_corruption(settings, store, request, report), request)


def read_corruption(
    settings: Settings, store: ObjectStore, request: CorruptionRequest, report: Report
) -> CorruptionFacts:
    """Raises:
    OpsError: as `prepare_corruption`.
    """
    application, postgres = read_application(settings.variables), settings.postgres
    with connect(postgres, "postgres") as connection:
        system_identifier = read_server(connection).system_identifier
        gate = choose_gate(connection, postgres, application, variables_of(settings))
        in_place = request.into is None
        lacks = lacking(connection, postgres.user, Purpose.RECEIVER.need.rights)
        obstacles = [*fence_obstacles(connection, postgres.database, gate.roles, application.roles, in_place=in_place)]
        row = connection.execute(
            "SELECT pg_database_size(oid) FROM pg_database WHERE datname = %s", (postgres.database,)
        ).fetchone()
    if row is None:
        raise RecoveryError(
            f"There is no database {postgres.database} on {postgres.host}:{postgres.port}.",
            hint="restore it from a logical backup: `tmi-ops restore --backup ID --into NAME`",
        )
    recovery = read_facts(store, system_identifier)
    programs = server_programs(
        recovery.server_major, settings.pg_bindir, settings.copy_libraries
    )  # before anything is fenced
    notes: list[str] = []
    if lacks:
        notes.append(
            f"{postgres.user} lacks {lacks[0].right}, so this run cannot archive the server's last WAL itself; only a "
            f"running receiver or archive_command can. To grant it, as a superuser: {lacks[0].statement}"
        )
    if request.moment is None:
        notes += gap_notes(recovery)
    else:
        target = request.moment.target
        try:
            facts = with_times(store, recovery, target, programs, settings.home / "scratch", report)
            notes += plan_recovery(facts, target, base=request.backup).notes
        except RecoveryError as error:
            if not _may_be_archived_yet(recovery, target):
                raise
            notes.append(f"The moment cannot be reached with the WAL archived so far: {error.message}")
    wanted = request.moment.target if request.moment else None
    obstacles += key_obstacles(settings.store.age_identity_file, recovery.bases)
    obstacles += room_obstacles(recovery, store, wanted, request.backup, request.into or settings.home)
    if request.into is not None:
        serve = request.serve or ServeRequest(port=postgres.port)
        obstacles += [*place_obstacles(request.into, request.owner), *serve_obstacles(serve)]
    notes += cache.cache_notes(settings, wanted=request.with_cache)
    subject = f"{postgres.database} on {postgres.host}:{postgres.port}"
    return CorruptionFacts(recovery, gate, application, subject, int(row[0]), tuple(notes), tuple(obstacles))


def _may_be_archived_yet(facts: RecoveryFacts, target: Target) -> bool:
    """Whether the target may be in WAL that the server has not archived yet."""
    if target.time is not None:
        return any(base.consistent_at <= target.time for base in facts.bases)
    return target.name is not None or (target.lsn is not None and target.lsn > end_of_wal(facts))


def plan_corruption(settings: Settings, facts: CorruptionFacts, request: CorruptionRequest) -> Plan:
    """Make the plan. Pure except for the clock and random names."""
    database, in_place = settings.postgres.database, request.into is None
    place = request.into or settings.home / PLACE / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    bases = base_ends(facts.recovery, request.backup)
    names = Names(
        database=database,
        working=derived_name(database, f"recovering_{secrets.token_hex(3)}"),
        aside=derived_name(database, f"damaged_{datetime.now(UTC):%Y%m%d_%H%M%S}"),
    )
    serve = request.serve or ServeRequest(port=settings.postgres.port)
    application = facts.application
    hook = "connect" in application.hooks
    steps = (
        fence_step(facts.gate),
        *stop_steps(application),
        archive.STEP,
        hold.STEP,
        _recover_step(request, place),
        *(
            in_place_steps(names, counted=bool(facts.gate.roles))
            if in_place
            else (COUNT_STEP, *serve_steps(serve, str(place), hook=hook))
        ),
        *cache.steps_after_jump(settings, wanted=request.with_cache),
        *((lift_step(facts.gate),) if in_place else ()),
        *start_steps(application),
        *((CLEAR_UP_STEP,) if in_place else ()),
    )
    return Plan(
        runbook=RUNBOOK,
        title="Recover from corruption",
        subject=facts.subject,
        steps=steps,
        untouched=_untouched(in_place=in_place, database=database),
        notes=(*facts.notes, *_notes(facts, request, settings), *missing_stop(application)),
        afterwards=(
            *cache.left_undone(settings, wanted=request.with_cache),
            *missing_start(application),
            *(() if in_place else served_afterwards()),
            *(() if in_place else (OLD_SERVER,)),
            RELEASE,
        ),
        obstacles=facts.obstacles,
        requests={
            "gate": facts.gate.model_dump(mode="json"),
            "held": Held(bases=tuple(item.base for item in bases)).model_dump(mode="json"),
            "names": names.model_dump(mode="json"),
            "serve": serve.model_dump(mode="json"),
            "recover": RecoverRequest(
                system_identifier=facts.recovery.system_identifier,
                database=database,
                place=Place(directory=str(place), owner=request.owner if request.into else None),
                moment=request.moment,
                backup=request.backup,
                limit=request.limit,
                ask_source=bool(facts.gate.roles),
            ).model_dump(mode="json"),
        },
    )


def _recover_step(request: CorruptionRequest, place: Path) -> Step:
    if request.moment is None:
        where = f"find the last good moment in {place}: restore up to {request.limit} candidates and check each"
    else:
        where = f"restore base backup and WAL to {request.moment.target.describe()} into {place} and check the result"
    return Step(
        name="recover",
        does=f"{where} (page checksums, pg_amcheck, schema, built-in rows, heartbeat)",
        way_back="remove the directory",
    )


def _untouched(*, in_place: bool, database: str) -> str:
    if in_place:
        return (
            f"The damaged {database} is not written to; it is kept under another name until you drop it. Other "
            "databases of the server are not touched."
        )
    return "The damaged server is only fenced: its data stays unchanged, and it stays closed until you open it."


def _notes(facts: CorruptionFacts, request: CorruptionRequest, settings: Settings) -> tuple[str, ...]:
    newest = max(facts.recovery.bases, key=lambda base: base.consistent_at)
    age = format_duration((datetime.now(UTC) - newest.consistent_at).total_seconds())
    notes = [f"Base backups of this cluster: {len(facts.recovery.bases)}; the newest ended {age} ago."]
    if request.serve is not None:
        notes += serve_notes(request.serve)
    if request.into is None:
        notes.append(
            f"The server's disk needs room for a second copy of the database: {format_size(facts.damaged_size)}. Check "
            "the free space there yourself; a connection cannot tell."
        )
    if not facts.gate.roles:
        notes.append(
            f"The application has no role of its own here, so the fence closes {settings.postgres.database} to "
            "everyone, including tmi-ops: lost rows are not counted, and the result is not compared with the damaged "
            "database. To shut out only the application's role, name it with TMI_OPS_APP_ROLE."
        )
    if request.moment is None:
        counted = "; lost rows will be counted" if facts.gate.roles else ""
        notes.append(f"Commits after the moment that is found are lost{counted}.")
    return tuple(notes)
