"""The WAL archive as an asset: caught up on schedule, or only watched while a receiver streams."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetKey,
    AssetSelection,
    Config,
    Definitions,
    MetadataValue,
    asset,
)
from pydantic import Field

from tmi_ops.orchestration.in_tick import Done
from tmi_ops.orchestration.policies import OWNERS, Lane, job_tags, pool
from tmi_ops.orchestration.protected import Protected
from tmi_ops.orchestration.readings import recent_facts
from tmi_ops.orchestration.resources import Environment, failures_explained
from tmi_ops.orchestration.results import Materialized, megabytes, seconds
from tmi_ops.orchestration.schedules import scheduled
from tmi_ops.settings import Purpose
from tmi_ops.text import format_duration

if TYPE_CHECKING:
    from tmi_ops.wal.receiver import ReceivedWal

JOB = "wal_catch_up"
LEVEL_CHECK = "within_the_rpo"
# A run that hangs is ended, and the next continues from where it was.
LONGEST_RUN = timedelta(hours=1)


class WalConfig(Config):
    """How the archive catches up with the server."""

    slot: str | None = Field(
        default=None, description="Replication slot; created if it does not exist. Default: the environment's slot."
    )
    accept_gap: bool = Field(
        default=False,
        description="Continue although the WAL between the end of the archive and the start of the slot is lost. Take "
        "a base backup afterwards.",
    )


def wal_definitions(here: Protected) -> Definitions:
    """Asset `<environment>/backup/wal` with a check against the RPO, its job, and a schedule derived from the RPO."""
    wal_key = here.key("backup", "wal")

    @asset(
        key=wal_key,
        group_name="backup",
        kinds={"postgres", "s3"},
        owners=OWNERS,
        pool=pool(here, "wal"),
        check_specs=[
            AssetCheckSpec(
                name=LEVEL_CHECK,
                asset=wal_key,
                description="The store has all WAL that the server had flushed up to a moment no older than the RPO.",
            )
        ],
        description=here.for_people(
            "The WAL archive: every change of the cluster, received over the replication protocol. A run catches up "
            "with the server; while `tmi-ops wal stream` is running, a run only reports how far that receiver is. "
            "Command: `tmi-ops wal stream --catch-up`."
        ),
    )
    @here.given
    def wal(context: AssetExecutionContext, config: WalConfig, environment: Environment) -> Materialized:
        from tmi_ops.wal.lease import LeaseHeldError
        from tmi_ops.wal.receiver import StreamOptions, catch_up_wal

        options = StreamOptions(slot=config.slot, accept_gap=config.accept_gap)
        rpo = environment.settings_for(Purpose.RECEIVER).objectives.rpo
        with failures_explained():
            try:
                received = catch_up_wal(
                    environment.settings_for(Purpose.RECEIVER),
                    environment.open_store(),
                    environment.report(context.log),
                    options,
                )
            except LeaseHeldError as held:
                if held.lease is None:
                    raise
                context.log.info(f"A receiver is running: {held.lease.describe()}.")
                seen = _seen(held.lease.describe(), held.lease.lsn, held.lease.timeline, held.lease.level_at)
                return Materialized(metadata=seen, check_results=[_level(held.lease.level_at, rpo)])
        if received is None:  # nothing stops it here
            raise AssertionError
        return Materialized(metadata=_metadata(received), check_results=[_level(received.level_at, rpo)])

    job = here.asset_job(
        JOB,
        selection=AssetSelection.assets(wal_key),
        description="Catch the WAL archive up with the server.",
        tags=job_tags(here, Lane.ARCHIVE, LONGEST_RUN),
    )
    schedule = scheduled(
        here,
        "wal_catch_up_within_the_rpo",
        job,
        here.timetable.wal,
        "catches the WAL archive up with the server, so often that the RPO is met even if a run fails. While a "
        "receiver is running, only watches it.",
        in_tick=lambda environment: _watched(environment, wal_key),
    )
    return Definitions(assets=[wal], jobs=[job], schedules=[schedule])


def _metadata(received: "ReceivedWal") -> dict[str, MetadataValue[Any]]:
    return {
        "archived to": MetadataValue.text(received.lsn),
        "timeline": MetadataValue.int(received.timeline),
        "received (MB)": megabytes(received.received),
        "new segments": MetadataValue.int(received.segments),
        "behind the server (MB)": megabytes(received.lag),
        "duration (s)": seconds(received.duration_seconds),
        **_level_metadata(received.level_at),
    }


def _watched(environment: Environment, wal_key: AssetKey) -> Done | None:
    """How far the running receiver is; None if none is running, so that a run must catch up."""
    facts = recent_facts(environment)
    receiver = facts.receiver
    if receiver is None or not receiver.at_work:
        return None
    result = Materialized(
        asset_key=wal_key,
        metadata=_seen(receiver.who, receiver.lsn, receiver.timeline, receiver.level_at),
        check_results=[_level(receiver.level_at, environment.settings.objectives.rpo)],
    )
    return Done(f"receiver {receiver.who} is running", [result])


def _seen(who: str, lsn: str | None, timeline: int | None, level_at: datetime | None) -> dict[str, MetadataValue[Any]]:
    return {
        "receiver": MetadataValue.text(who),
        "archived to": MetadataValue.text(lsn or "not known yet"),
        "timeline": MetadataValue.int(timeline or 0),
        **_level_metadata(level_at),
    }


def _level_metadata(level_at: datetime | None) -> dict[str, MetadataValue[Any]]:
    if level_at is None:
        return {}
    return {
        "complete to": MetadataValue.timestamp(level_at),
        "achieved RPO (s)": seconds((datetime.now(UTC) - level_at).total_seconds()),
    }


def _level(level_at: datetime | None, rpo: timedelta) -> AssetCheckResult:
    behind = None if level_at is None else datetime.now(UTC) - level_at
    rpo_text = format_duration(rpo.total_seconds())
    if behind is None:
        said = f"Not known when the archive was last level with the server; the RPO is {rpo_text}."
    else:
        ago = format_duration(round(behind.total_seconds()))
        said = f"The archive was last level with the server {ago} ago; the RPO is {rpo_text}."
    return AssetCheckResult(
        check_name=LEVEL_CHECK,
        passed=behind is not None and behind <= rpo,
        severity=AssetCheckSeverity.ERROR,
        description=said,
        metadata={"RPO (s)": rpo.total_seconds(), **_level_metadata(level_at)},
    )
