"""WAL archiving: whether it keeps up, and whether the slot endangers the server. Pure.

A slot keeps WAL on the server until it is archived. Without a receiver, either the server's disk fills up or, with
`max_slot_wal_keep_size`, the server invalidates the slot, which leaves a gap; both are reported before they happen.

Source: https://www.postgresql.org/docs/current/view-pg-replication-slots.html
"""

from __future__ import annotations

from dataclasses import dataclass

from tmi_ops.objectives.cures import Action, Cure
from tmi_ops.objectives.facts import RecoverabilityFacts, ServerReading
from tmi_ops.objectives.rpo import DUMPS_ARE_ENOUGH_FROM
from tmi_ops.objectives.standing import AT_RISK_FROM, Standing
from tmi_ops.settings import Objectives
from tmi_ops.text import format_duration, format_size
from tmi_ops.wal.slot import LOST, SlotFacts

# If the server keeps WAL without limit, this many bytes are a sign that the receiver is gone.
KEPT_UNLIMITED = 2 << 30
# What archive_command may leave: the open segment, and the one that it is copying.
ON_THEIR_WAY = 2


@dataclass(frozen=True)
class StreamReading:
    """The status of archiving. `behind`: bytes of WAL that are not archived; `kept`: bytes kept for the slot; `left`:
    bytes that may be written before the slot is lost. None: not known, or without limit."""

    standing: Standing
    reason: str
    cures: tuple[Cure, ...]
    behind: int | None = None
    kept: int | None = None
    left: int | None = None


def judge_stream(facts: RecoverabilityFacts, objectives: Objectives) -> StreamReading:
    """Judge the state of WAL archiving."""
    server = facts.server
    if server is None:
        reason = f"The database could not be queried: {facts.server_problem}"
        return StreamReading(Standing.UNKNOWN, reason, (Cure(Action.REACH_DATABASE),))
    slot = server.slot
    if slot is None:
        return _without_slot(facts, server, objectives)
    standing, reason, cures = _judge_slot(slot, server.keep_limit, server.behind)
    if standing is Standing.MET and _has_died(facts) and not slot.active:
        standing = Standing.AT_RISK
        cures = (Cure(Action.CATCH_UP_WAL), Cure(Action.START_RECEIVER, detail="again, as a service"))
    return StreamReading(standing, f"{reason} {_who(facts)}", cures, server.behind, slot.kept, slot.left)


def _without_slot(facts: RecoverabilityFacts, server: ServerReading, objectives: Objectives) -> StreamReading:
    behind, archiver = server.behind, server.archiver
    if archiver and behind is not None and behind <= ON_THEIR_WAY * archiver.segment_size and not _has_died(facts):
        if archiver.unknown:
            reason = "The server archives WAL itself, but has not finished a segment since its statistics began."
            return StreamReading(Standing.UNKNOWN, reason, (), behind)
        # What it archived must be in this archive: it may store elsewhere.
        if archiver.archived_to is not None and archiver.archived_to <= server.lsn - behind:
            reason = f"The server's archive_command works; the archive lacks {format_size(behind)} of WAL."
            return StreamReading(Standing.MET, reason, (), behind)
    if objectives.rpo >= DUMPS_ARE_ENOUGH_FROM:
        reason = "WAL is not archived; the RPO does not require it."
        return StreamReading(Standing.MET, reason, (), behind)
    rpo = format_duration(objectives.rpo.total_seconds())
    reason = f"The server has no slot of tmi_ops: WAL is not archived, so an RPO of {rpo} cannot be met."
    return StreamReading(Standing.AT_RISK, reason, (Cure(Action.START_RECEIVER),), behind)


def keeps_too_little(slot: SlotFacts, behind: int | None) -> bool:
    """Whether the slot is ahead of the archive, so that the server may remove WAL that the archive lacks: two receivers
    with different stores share it, or it was recreated.
    """
    return behind is not None and slot.kept is not None and behind > slot.kept


def _judge_slot(slot: SlotFacts, keep_limit: int | None, behind: int | None) -> tuple[Standing, str, tuple[Cure, ...]]:
    catch_up = (
        (Cure(Action.START_RECEIVER, detail="again: it does not keep up"),)
        if slot.active
        else (Cure(Action.CATCH_UP_WAL), Cure(Action.START_RECEIVER, detail="as a service"))
    )
    kept = format_size(slot.kept or 0)
    if slot.status == LOST:
        reason = f"The server has invalidated the slot {slot.name}; WAL written since may be missing from the archive."
        return (
            Standing.BREACHED,
            reason,
            (
                Cure(Action.BACK_UP_INCREMENTAL, detail="which replaces the lost WAL"),
                Cure(Action.START_RECEIVER, detail="with --accept-gap"),
            ),
        )
    if keeps_too_little(slot, behind):
        reason = (
            f"The archive lacks {format_size(behind or 0)} of WAL and the slot {slot.name} keeps only {kept} of it: "
            "the server may remove the rest at any moment."
        )
        return Standing.BREACHED, reason, (*catch_up, Cure(Action.BACK_UP_BASE, detail="if it is already gone"))
    if slot.status == "unreserved":
        return Standing.AT_RISK, f"The slot {slot.name} is about to be lost: {kept} of WAL is kept for it.", catch_up
    if slot.left is not None and keep_limit and (slot.kept or 0) >= AT_RISK_FROM * keep_limit:
        reason = (
            f"The server keeps {kept} of WAL for the slot; after {format_size(slot.left)} more it invalidates the slot."
        )
        return Standing.AT_RISK, reason, catch_up
    if keep_limit is None and (slot.kept or 0) >= KEPT_UNLIMITED:
        reason = f"The server keeps {kept} of WAL for the slot, without limit: its disk is filling up."
        return Standing.AT_RISK, reason, catch_up
    return Standing.MET, f"The server keeps {kept} of WAL for the slot.", ()


def _has_died(facts: RecoverabilityFacts) -> bool:
    """Whether the last receiver ended without releasing its lease: it was killed or cut off."""
    return facts.receiver is not None and not facts.receiver.at_work and not facts.receiver.ended


def _who(facts: RecoverabilityFacts) -> str:
    receiver = facts.receiver
    if receiver is None:
        return "No receiver has reported yet."
    if receiver.at_work:
        return f"A receiver is running ({receiver.who})."
    if _has_died(facts):
        heard = format_duration(receiver.age.total_seconds())
        return f"The receiver ({receiver.who}) has died or is cut off; it last reported {heard} ago."
    return f"No receiver is running; the last one ended {format_duration(receiver.age.total_seconds())} ago."
