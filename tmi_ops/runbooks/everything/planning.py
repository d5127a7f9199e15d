"""The plan of the recovery from a complete failure, from the store's facts.

The only server it asks is the cache, for its revoked tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.programs import server_programs
from tmi_ops.postgres.versions import major_of
from tmi_ops.progress import Report
from tmi_ops.recovery.point_in_time.facts import RecoveryFacts, read_facts
from tmi_ops.runbooks.application import Application, read_application
from tmi_ops.runbooks.ends import gap_notes
from tmi_ops.runbooks.obstacles import key_obstacles, place_obstacles, room_obstacles, serve_obstacles
from tmi_ops.runbooks.plan import Obstacle, Plan, Step
from tmi_ops.runbooks.serving.steps import (
    ServeRequest,
    serve_notes,
    serve_steps,
    served_afterwards,
)
from tmi_ops.runbooks.steps import cache
from tmi_ops.runbooks.steps.hooks import missing_start, start_steps
from tmi_ops.runbooks.steps.place import Place
from tmi_ops.runbooks.steps.recover import Moment, RecoverRequest
from tmi_ops.runbooks.unfinished import refuse_unfinished
from tmi_ops.settings import Settings
from tmi_ops.shadow.place import LocalState, read_local
from tmi_ops.shadow.takeover import require_shadow
from tmi_ops.store.catalogue import find_backup, list_backups
from tmi_ops.store.manifest import Manifest
from tmi_ops.store.objects import ObjectStore
from tmi_ops.text import format_duration

RUNBOOK = "everything"


@dataclass(frozen=True)
class EverythingRequest:
    """The user's request.

    Args:
        into: the new data directory, absent or empty.
        moment: None: the end of the archive, or if that is not sound, the last moment that is.
        cluster: system identifier; None: that of the newest base backup.
        owner: the account that will run the new cluster; None: one that can.
        with_cache: reconcile the cache, if there is one.
        from_shadow: promote this machine's shadow instead of restoring.
    """

    into: Path
    serve: ServeRequest
    moment: Moment | None = None
    backup: str | None = None
    cluster: str | None = None
    limit: int = 8
    with_cache: bool = True
    owner: str | None = None
    from_shadow: bool = False


@dataclass(frozen=True)
class EverythingFacts:
    """What the store has: base backups with WAL, or (`recovery` is None) only a logical backup.

    `cache`: notes on the cache and its revoked tokens. `shadow`: its last report.
    """

    recovery: RecoveryFacts | None
    logical: Manifest | None
    application: Application
    cache: tuple[str, ...] = ()
    obstacles: tuple[Obstacle, ...] = ()
    shadow: LocalState | None = None


def prepare_everything(settings: Settings, store: ObjectStore, request: EverythingRequest, report: Report) -> Plan:
    """Read the facts and make the plan. Changes nothing.

    Raises:
        RecoveryError: the store has no backup, or an earlier run is not finished.
        ProgramError: PostgreSQL programs of the backups' version are not installed.
        StoreError: the store failed.
    """
    refuse_unfinished(settings, store, (RUNBOOK,), report)
    facts = read_everything(settings, store, request)
    return plan_everything(settings, facts, request)


def read_everything(settings: Settings, store: ObjectStore, request: EverythingRequest) -> EverythingFacts:
    """Raises:
    OpsError: as `prepare_everything`.
    """
    application = read_application(settings.variables)
    obstacles = (*place_obstacles(request.into, request.owner), *serve_obstacles(request.serve))
    notes = (*cache.cache_notes(settings, wanted=request.with_cache), *cache.revocation_notes(settings))
    if list_backups(store, lambda _: None, kinds=("base",)):
        facts = read_facts(store, request.cluster)
        obstacles = (*obstacles, *key_obstacles(settings.store.age_identity_file, facts.bases))
        server_programs(facts.server_major, settings.pg_bindir)
        if request.from_shadow:
            return _with_shadow(settings, facts, application, notes, obstacles)
        target = request.moment.target if request.moment else None
        room = room_obstacles(facts, store, target, request.backup, request.into)
        return EverythingFacts(facts, None, application, notes, (*obstacles, *room))
    if not list_backups(store, lambda _: None, kinds=("logical",)):
        raise RecoveryError(
            f"There is no backup in {settings.store.describe()} for {settings.environment}.",
            hint="check TMI_ENV, TMI_OPS_S3_BUCKET and TMI_OPS_S3_PREFIX: `tmi-ops settings`",
        )
    manifest = find_backup(store, request.backup or "latest", settings.postgres.database)
    server_programs(major_of(manifest.server_version_num), settings.pg_bindir)
    return EverythingFacts(
        None, manifest, application, notes, (*obstacles, *key_obstacles(settings.store.age_identity_file, [manifest]))
    )


def _with_shadow(
    settings: Settings,
    facts: RecoveryFacts,
    application: Application,
    notes: tuple[str, ...],
    obstacles: tuple[Obstacle, ...],
) -> EverythingFacts:
    """Raises:
    RecoveryError: this machine has no shadow, or it is of another cluster.
    """
    seed = require_shadow(settings)
    if seed.system_identifier != facts.system_identifier:
        raise RecoveryError(
            f"The shadow follows the cluster {seed.system_identifier}, not {facts.system_identifier}.",
            hint=f"use --cluster {seed.system_identifier}, or omit --from-shadow",
        )
    return EverythingFacts(facts, None, application, notes, obstacles, read_local(settings))


def plan_everything(settings: Settings, facts: EverythingFacts, request: EverythingRequest) -> Plan:
    """Make the plan. Pure except for the clock."""
    application, logical = facts.application, facts.logical
    database = logical.database if logical else settings.postgres.database
    cluster = facts.recovery.system_identifier if facts.recovery else ""
    return Plan(
        runbook=RUNBOOK,
        title="Recover from a complete failure",
        subject=f"{database} into {request.into}",
        steps=(
            _recover_step(facts, request),
            *serve_steps(request.serve, str(request.into), hook="connect" in application.hooks),
            *cache.steps_after_jump(settings, wanted=request.with_cache),
            *start_steps(application),
        ),
        untouched="The store is not changed, nor is any running server except the cache."
        if settings.redis and request.with_cache
        else "The store is not changed, nor is any running server.",
        notes=(*_notes(settings, facts), *serve_notes(request.serve), *facts.cache),
        afterwards=(
            *cache.left_undone(settings, wanted=request.with_cache),
            *missing_start(application),
            *served_afterwards(),
        ),
        obstacles=facts.obstacles,
        requests={
            "serve": request.serve.model_dump(mode="json"),
            "recover": RecoverRequest(
                system_identifier=cluster,
                database=database,
                place=Place(directory=str(request.into), owner=request.owner),
                moment=request.moment,
                backup=logical.backup_id if logical else request.backup,
                limit=request.limit,
                ask_source=False,
                living=False,
                shadow=request.from_shadow,
            ).model_dump(mode="json"),
        },
    )


def _recover_step(facts: EverythingFacts, request: EverythingRequest) -> Step:
    if facts.logical is not None:
        return Step(
            name="restore",
            does=f"create a new cluster in {request.into}, restore the roles and the database of "
            f"{facts.logical.backup_id}, and compare every table with its fingerprint",
            way_back="remove the directory",
        )
    if request.from_shadow:
        return Step(
            name="recover",
            does=f"let the shadow replay all archived WAL, promote it, move it to {request.into}, and check it "
            "(schema, built-in rows, heartbeat; it has already checked its pages and relations)",
            way_back="remove the directory; the shadow is restored from the store the next time it runs",
        )
    where = request.moment.target.describe() if request.moment else "the end of the archive"
    return Step(
        name="recover",
        does=f"restore base backup and WAL to {where} into {request.into} and check the result (page checksums, "
        "pg_amcheck, schema, built-in rows, heartbeat)",
        way_back="remove the directory",
    )


def _shadow_note(state: LocalState) -> str:
    report = state.report
    until = (
        "no commit yet" if report.verified_to is None else f"commits up to {report.verified_to:%Y-%m-%d %H:%M:%S %Z}"
    )
    late = (
        f" It is delayed by {format_duration(report.delay_s)} on purpose and catches up first."
        if report.delay_s
        else ""
    )
    stopped = f" It is stopped: {report.stopped_by.what}" if report.stopped_by else ""
    return f"The shadow {report.name} has replayed {until}.{late}{stopped}"


def _notes(settings: Settings, facts: EverythingFacts) -> tuple[str, ...]:
    if facts.logical is not None:
        age = format_duration((datetime.now(UTC) - facts.logical.snapshot_at).total_seconds())
        return (f"The store has no base backup: everything written in the {age} since the logical backup is lost.",)
    if facts.recovery is None:
        raise AssertionError
    if facts.shadow is not None:
        return (_shadow_note(facts.shadow), *gap_notes(facts.recovery))
    newest = max(facts.recovery.bases, key=lambda base: base.consistent_at)
    age = format_duration((datetime.now(UTC) - newest.consistent_at).total_seconds())
    notes = [f"Base backups of the cluster: {len(facts.recovery.bases)}; the newest ended {age} ago."]
    notes += gap_notes(facts.recovery)
    if facts.recovery.other_clusters:
        others = ", ".join(facts.recovery.other_clusters)
        notes.append(f"The store also has backups of other clusters: {others}. Select one with --cluster.")
    if settings.environment == "production":
        notes.append("The new server has no certificate yet; connections to it are not encrypted until it has one.")
    return tuple(notes)
