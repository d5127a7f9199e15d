"""A status as JSON: figures in seconds and bytes, moments in ISO 8601."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from tmi_ops.health.record import LastAnswers
from tmi_ops.objectives.cures import Cure
from tmi_ops.objectives.dumps import DumpReading
from tmi_ops.objectives.facts import Reach
from tmi_ops.objectives.history import Worst
from tmi_ops.objectives.rpo import RpoReading
from tmi_ops.objectives.rto import RtoForecast
from tmi_ops.objectives.status import Recoverability, Status
from tmi_ops.objectives.store_usage import total_of


def as_facts(status: Status) -> dict[str, Any]:
    """The whole status."""
    found = status.recoverability
    return {
        "environment": status.environment,
        "database": status.database,
        "store": status.store,
        "at": status.at.isoformat(),
        "standing": status.standing.value,
        "problems": {"store": status.store_problem, "database": status.database_problem},
        "rpo": _rpo(found.rpo, found) if found else None,
        "rto": _rto(found.rto) if found else None,
        "wal_stream": _stream(found) if found else None,
        "logical_backups": _dumps(found.dumps) if found and found.dumps else None,
        "recoverable": _recoverable(found) if found else None,
        "storage": _storage(found) if found else None,
        "next_runs": {
            "problem": status.automatic.problem,
            "sensors": status.automatic.sensors,
            "findings": [
                {"severity": one.severity.value, "subject": one.subject, "what": one.what}
                for one in status.automatic.findings
            ],
            "runs": [{"schedule": run.schedule, "at": run.at.isoformat()} for run in status.automatic.runs],
        },
        "alerts": None if status.alerts is None else [record.alert.model_dump(mode="json") for record in status.alerts],
        "health": _health(status.health) if status.health else None,
        "findings": list(found.facts.problems) if found else [],
        "failed_backups": list(found.facts.failed) if found else [],
    }


def _dumps(reading: DumpReading) -> dict[str, Any]:
    return {
        "standing": reading.standing.value,
        "reason": reading.reason,
        "seconds": _seconds(reading.value),
        "objective_seconds": _seconds(reading.objective),
        "newest": reading.newest.backup_id if reading.newest else None,
        "cures": [_cure(cure) for cure in reading.cures],
    }


def _rpo(reading: RpoReading, found: Recoverability) -> dict[str, Any]:
    return {
        "standing": reading.standing.value,
        "reason": reading.reason,
        "seconds": _seconds(reading.value),
        "objective_seconds": _seconds(reading.objective),
        "seconds_if_newest_were_proven": _seconds(reading.unverified),
        "worst_24_h": _worst(found.worst_day),
        "worst_30_d": _worst(found.worst_month),
        "cures": [_cure(cure) for cure in reading.cures],
    }


def _rto(forecast: RtoForecast) -> dict[str, Any]:
    last = forecast.last_drill
    return {
        "standing": forecast.standing.value,
        "reason": forecast.reason,
        "seconds": _seconds(forecast.value),
        "objective_seconds": _seconds(forecast.objective),
        "basis": forecast.basis,
        "phases": [
            {"phase": one.phase, "seconds": round(one.seconds, 3), "bytes": one.amount, "basis": one.basis}
            for one in forecast.phases
        ],
        "last_drill": None
        if last is None
        else {
            "drill_id": last.drill_id,
            "at": last.at.isoformat(),
            "outcome": last.outcome,
            "seconds": _seconds(last.rto),
        },
        "drill_due": forecast.drill_due,
        "cures": [_cure(cure) for cure in forecast.cures],
    }


def _stream(found: Recoverability) -> dict[str, Any]:
    stream, receiver = found.stream, found.facts.receiver
    return {
        "standing": stream.standing.value,
        "reason": stream.reason,
        "behind_bytes": stream.behind,
        "kept_for_slot_bytes": stream.kept,
        "left_for_slot_bytes": stream.left,
        "receiver_at_work": receiver is not None and receiver.at_work,
        "level_at": _moment(receiver.level_at) if receiver else None,
        "cures": [_cure(cure) for cure in stream.cures],
    }


def _recoverable(found: Recoverability) -> dict[str, Any]:
    facts = found.facts
    return {
        "every_moment_since": _moment(facts.earliest_at),
        "oldest_backup_at": _moment(facts.oldest_backup_at),
        "newest": _reach(facts.newest),
        "proven": _reach(facts.verified),
        "last_proof": None
        if facts.last_verification is None
        else {
            "backup_id": facts.last_verification.backup_id,
            "at": facts.last_verification.at.isoformat(),
            "restore_seconds": _seconds(facts.last_verification.restore),
        },
    }


def _reach(reach: Reach | None) -> dict[str, Any] | None:
    if reach is None:
        return None
    return {
        "at": reach.at.isoformat(),
        "means": reach.means,
        "backup_id": reach.backup_id,
        "proven": reach.verified,
        "shown_by": reach.shown_by,
        "missing_wal": reach.missing,
    }


def _storage(found: Recoverability) -> dict[str, Any]:
    usage = found.facts.storage

    def kind(name: str) -> dict[str, int]:
        one = usage[name] if name in usage else total_of(usage)
        return {"objects": one.objects, "bytes": one.size, "stored_24_h": one.added_day, "stored_7_d": one.added_week}

    return {
        "total": kind("total"),
        "kinds": {name: kind(name) for name in sorted(usage)},
        "growth_bytes_per_day": None if found.growth is None else round(found.growth),
    }


def _health(last: LastAnswers) -> dict[str, Any]:
    return {
        "status": last.status.value,
        "counts": {status.value: count for status, count in last.counts.items()},
        "oldest_at": last.oldest_at.isoformat(),
        "probes": [
            {"name": name, **one.model_dump(mode="json", exclude={"at"}), "at": one.at.isoformat()}
            for name, one in last.answers.items()
        ],
    }


def _worst(worst: Worst) -> dict[str, Any]:
    return {
        "seconds": _seconds(worst.value),
        "measured_seconds": _seconds(worst.measured),
        "nothing_proven_seconds": _seconds(worst.unverified),
    }


def _cure(cure: Cure) -> dict[str, Any]:
    return {"action": cure.action.value, "command": cure.command, "detail": cure.detail, "backup_id": cure.backup_id}


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else round(span.total_seconds(), 3)


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
