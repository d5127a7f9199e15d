"""Applies a shadow's report: what it replayed is verified, and nothing beyond the point where it stopped. Pure.

1. A shadow of this cluster with a recent report, no delay and no damage: the newest verified moment is the one it
   replayed. Until it has replayed the whole archive once, the newest moment of a verified backup counts if it is newer.
2. A shadow that has stopped shows that the WAL cannot be replayed further: the moment it replayed counts, although it
   grows old, until there is a base backup after that point.
3. A shadow with damage verifies nothing, and the damage is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from tmi_ops.objectives.facts import BaseWay, Reach, RecoverabilityFacts, ShadowReading
from tmi_ops.shadow.report import KnownReport, prover_of
from tmi_ops.text import format_duration

# Used until a promotion was measured.
ASSUMED_PROMOTION = timedelta(seconds=30)
REPLAY_SPEED = 20_000_000  # bytes of WAL a second; cautious


@dataclass(frozen=True)
class Counted:
    """The newest verified and the newest moment, with the shadow taken into account."""

    verified: Reach | None
    newest: Reach | None


def read_shadow(reports: Sequence[KnownReport], system_identifier: str | None) -> ShadowReading | None:
    """The shadow that counts. None: there is none."""
    known = None if system_identifier is None else prover_of(reports, system_identifier)
    verified_to = None if known is None else known.report.verified_to
    if known is None or verified_to is None:
        return None
    report = known.report
    stopped, damage = report.stopped_by, report.damage
    return ShadowReading(
        name=report.name,
        host=report.host,
        backup_id=report.backup_id,
        age=known.age,
        verified_to=verified_to.astimezone(UTC),
        has_been_level=report.has_been_level,
        behind=report.behind,
        stopped=stopped.what if stopped else None,
        stopped_since=stopped.since.astimezone(UTC) if stopped else None,
        missing=stopped.segment if stopped and stopped.kind in ("hole", "damaged object", "untrusted object") else None,
        damage=damage[0].detail if damage else None,
        promotion=None if report.promote_s is None else timedelta(seconds=report.promote_s),
    )


def problems_of(reports: Sequence[KnownReport], system_identifier: str | None) -> list[str]:
    """The problems of this cluster's shadows, one sentence each: no recent report, troubles that do not stop the
    replay, and damage."""
    found = []
    for known in reports:
        report = known.report
        if report.system_identifier not in ("", system_identifier) or report.state == "ended":
            continue
        if known.is_stale:
            silent = format_duration(known.age.total_seconds())
            found.append(f"The shadow {report.name} has not reported for {silent}, so it does not count.")
        found += [f"The shadow {report.name}: {one.what}" for one in report.troubles if not one.stops]
        found += [f"The shadow {report.name} found damage. {one.detail}" for one in report.damage]
    return found


def counted(verified: Reach | None, newest: Reach | None, way: BaseWay | None, shadow: ShadowReading | None) -> Counted:
    """Apply the rules in the module's docstring."""
    if shadow is None or shadow.damage is not None:
        return Counted(verified, newest)
    own = Reach(shadow.verified_to, "WAL", shadow.backup_id, True, "shadow")
    if shadow.stopped is not None and shadow.stopped_since is not None:
        own = replace(own, missing=shadow.missing, broken=None if shadow.missing else shadow.stopped)
        behind_it = way is not None and way.consistent_at > shadow.stopped_since
        if behind_it:
            before = (
                verified if verified is not None and way is not None and verified.backup_id == way.backup_id else own
            )
            return Counted(before, newest)
        by_dump = [one for one in (verified, newest) if one is not None and one.means == "logical backup"]
        best = max([own, *by_dump], key=lambda one: one.at)
        return Counted(own if best is own or not best.verified else best, best)
    if not shadow.has_been_level:
        own = max((one for one in (verified, own) if one is not None), key=lambda one: one.at)
    later = newest if newest is not None and newest.at > own.at else None
    return Counted(own, own if later is None else later)


def promotion_of(facts: RecoverabilityFacts) -> timedelta | None:
    """How long a promotion of the shadow would take now; None: no shadow can be promoted."""
    shadow = facts.shadow
    if shadow is None or shadow.stopped is not None or shadow.damage is not None or not shadow.has_been_level:
        return None
    return (shadow.promotion or ASSUMED_PROMOTION) + timedelta(seconds=shadow.behind / REPLAY_SPEED)


def describe_shadow(shadow: ShadowReading, now: datetime) -> str:
    """The state of a shadow in one line."""
    ago = format_duration(max(0.0, (now - shadow.verified_to).total_seconds()))
    if shadow.damage is not None:
        return f"{shadow.name} found damage: {shadow.damage}"
    if shadow.stopped is not None:
        return f"{shadow.name} has stopped; verified up to {ago} ago: {shadow.stopped}"
    return f"{shadow.name}: all commits up to {ago} ago are replayed"
