"""Facts to judge, as a table of cases needs them: an environment that is well, and what differs from it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tmi_ops.objectives.facts import (
    BaseWay,
    DrillMeasure,
    LogicalBackup,
    Reach,
    ReceiverReading,
    RecoverabilityFacts,
    ServerReading,
)
from tmi_ops.settings import Objectives
from tmi_ops.wal.slot import SlotFacts

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
PRODUCTION = Objectives(rpo=timedelta(minutes=15), rto=timedelta(minutes=30))
DEVELOPMENT = Objectives(rpo=timedelta(hours=24), rto=timedelta(hours=4))
BASE = "20261125T010000Z-base-aaaa"
DUMP = "20261125T020000Z-logical-bbbb"
MB = 1_000_000
GB = 1000 * MB


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def reach(at: datetime, means: Any = "WAL", *, verified: bool = True, missing: str | None = None) -> Reach:
    backup_id = DUMP if means == "logical backup" else BASE
    return Reach(at, means, backup_id, verified, "snapshot" if means == "logical backup" else "receiver", missing)


def slot(**changes: Any) -> SlotFacts:
    facts: dict[str, Any] = {
        "name": "tmi_ops",
        "active": True,
        "restart_lsn": 1 << 24,
        "status": "reserved",
        "left": None,
        "kept": 16 * MB,
    }
    return SlotFacts(**facts | changes)


def server(**changes: Any) -> ServerReading:
    facts: dict[str, Any] = {
        "at": NOW,
        "clock_ahead": timedelta(0),
        "version": "17.10",
        "system_identifier": "7000000000000000001",
        "timeline": 1,
        "lsn": 1 << 25,
        "in_recovery": False,
        "slot": slot(),
        "keep_limit": 10 * GB,
        "behind": 0,
        "level": True,
    }
    return ServerReading(**facts | changes)


def receiver(*, at_work: bool = True, age: timedelta = timedelta(seconds=3)) -> ReceiverReading:
    return ReceiverReading(at_work, "process 1 on backup", ago(days=1), not at_work, age, NOW - age)


def way(**changes: Any) -> BaseWay:
    facts: dict[str, Any] = {
        "backup_id": BASE,
        "consistent_at": ago(hours=11),
        "fetched": GB,
        "full": GB,
        "cluster_size": 4 * GB,
        "replayed": GB,
        "chain_length": 1,
    }
    return BaseWay(**facts | changes)


def drill(**changes: Any) -> DrillMeasure:
    """One that moved as much as `way` asks for, in 8 minutes."""
    facts: dict[str, Any] = {
        "drill_id": "20261122T040000Z-drill-cccc",
        "at": ago(days=3),
        "outcome": "passed",
        "sound": True,
        "reasons": (),
        "rto": timedelta(minutes=8),
        "phases": {
            "plan": 5.0,
            "prepare": 5.0,
            "fetch": 60.0,
            "extract": 60.0,
            "check files": 20.0,
            "replay": 120.0,
            "promote": 5.0,
            "sync": 20.0,
            "start": 5.0,
            "verify": 180.0,
        },
        "fetched": GB,
        "restored": 4 * GB,
        "replayed": GB,
    }
    return DrillMeasure(**facts | changes)


def dump(at: datetime, outcome: Any = "proven", **changes: Any) -> LogicalBackup:
    verified = outcome == "proven"
    facts: dict[str, Any] = {
        "backup_id": f"{at:%Y%m%dT%H%M%SZ}-logical-bbbb",
        "snapshot_at": at,
        "size": 100 * MB,
        "database_size": GB,
        "outcome": outcome,
        "restore": timedelta(minutes=1) if verified else None,
        "verify": timedelta(minutes=2) if verified else None,
    }
    return LogicalBackup(**facts | changes)


def facts(**changes: Any) -> RecoverabilityFacts:
    """Proven base, WAL level with the server three seconds ago, a drill of this week; what differs is named."""
    here = reach(ago(seconds=3))
    given: dict[str, Any] = {
        "environment": "production",
        "read_at": NOW,
        "verified": here,
        "newest": here,
        "earliest_at": ago(days=7),
        "oldest_backup_at": ago(days=30),
        "server": server(),
        "server_problem": None,
        "receiver": receiver(),
        "way": way(),
        "last_verification": None,
        "logical": (),
        "drills": (drill(),),
    }
    return RecoverabilityFacts(**given | changes)


def without_server(**changes: Any) -> RecoverabilityFacts:
    return facts(**{"server": None, "server_problem": "PostgreSQL could not be reached.", **changes})
