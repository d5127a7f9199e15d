"""The stream of WAL from server to store: whether it keeps up, and whether the slot endangers the server. Pure.

A slot keeps WAL on the server until the store holds it. Were nobody to receive, either the server's disk would fill up,
or, with `max_slot_wal_keep_size`, the slot would be given up and leave a hole; both are told of before they happen.

Source: https://www.postgresql.org/docs/current/view-pg-replication-slots.html
"""

from __future__ import annotations

from dataclasses import dataclass

from tmi_ops.objectives.cures import Action, Cure
from tmi_ops.objectives.facts import RecoverabilityFacts
from tmi_ops.objectives.rpo import DUMPS_ARE_ENOUGH_FROM
from tmi_ops.objectives.standing import AT_RISK_FROM, Standing
from tmi_ops.settings import Objectives
from tmi_ops.wal.slot import LOST, SlotFacts
from tmi_ops.words import size_words, time_words

# Where the server keeps WAL without limit, this much is taken for the sign of a receiver that is gone.
KEPT_UNLIMITED = 2 << 30


@dataclass(frozen=True)
class StreamReading:
    """The judgement. `behind`: bytes that the server has and the store lacks; `kept`: bytes kept for the slot; `left`:
    bytes that may still be written before the slot is in danger. None: not known, or without limit."""

    standing: Standing
    reason: str
    cures: tuple[Cure, ...]
    behind: int | None = None
    kept: int | None = None
    left: int | None = None


def judge_stream(facts: RecoverabilityFacts, objectives: Objectives) -> StreamReading:
    """Judge the stream."""
    server = facts.server
    if server is None:
        reason = f"The database could not be asked: {facts.server_problem}"
        return StreamReading(Standing.UNKNOWN, reason, (Cure(Action.REACH_DATABASE),))
    slot = server.slot
    if slot is None:
        return _without_slot(objectives, server.behind)
    standing, reason, cures = _judge_slot(slot, server.keep_limit, server.behind)
    if standing is Standing.MET and _has_died(facts) and not slot.active:
        standing = Standing.AT_RISK
        cures = (Cure(Action.CATCH_UP_WAL), Cure(Action.START_RECEIVER, detail="anew, as a service"))
    return StreamReading(standing, f"{reason} {_who(facts)}", cures, server.behind, slot.kept, slot.left)


def _without_slot(objectives: Objectives, behind: int | None) -> StreamReading:
    if objectives.rpo >= DUMPS_ARE_ENOUGH_FROM:
        reason = "WAL is not received, and the RPO does not need it."
        return StreamReading(Standing.MET, reason, (), behind)
    rpo = time_words(objectives.rpo.total_seconds())
    reason = f"The server has no slot of ours: WAL is not received, so an RPO of {rpo} cannot be held."
    return StreamReading(Standing.AT_RISK, reason, (Cure(Action.START_RECEIVER),), behind)


def keeps_too_little(slot: SlotFacts, behind: int | None) -> bool:
    """Whether the slot is beyond what the archive holds, so that what the archive lacks may be gone at any moment: two
    receivers of different stores share it, or it was made anew.
    """
    return behind is not None and slot.kept is not None and behind > slot.kept


def _judge_slot(slot: SlotFacts, keep_limit: int | None, behind: int | None) -> tuple[Standing, str, tuple[Cure, ...]]:
    catch_up = (
        (Cure(Action.START_RECEIVER, detail="anew: it does not keep up"),)
        if slot.active
        else (Cure(Action.CATCH_UP_WAL), Cure(Action.START_RECEIVER, detail="as a service"))
    )
    kept = size_words(slot.kept or 0)
    if slot.status == LOST:
        reason = f"The server has given up the slot {slot.name}: what it wrote since may be missing from the archive."
        return (
            Standing.BREACHED,
            reason,
            (
                Cure(Action.BACK_UP_INCREMENTAL, detail="which makes up for the lost WAL"),
                Cure(Action.START_RECEIVER, detail="with --accept-gap"),
            ),
        )
    if keeps_too_little(slot, behind):
        reason = (
            f"The archive lacks {size_words(behind or 0)} of WAL and the slot {slot.name} keeps {kept} of it: the rest "
            "may be gone from the server at any moment."
        )
        return Standing.BREACHED, reason, (*catch_up, Cure(Action.BACK_UP_BASE, detail="if it is gone already"))
    if slot.status == "unreserved":
        return Standing.AT_RISK, f"The slot {slot.name} is about to be lost: {kept} of WAL is kept for it.", catch_up
    if slot.left is not None and keep_limit and (slot.kept or 0) >= AT_RISK_FROM * keep_limit:
        reason = (
            f"The server keeps {kept} of WAL for the slot; after {size_words(slot.left)} more it gives the slot up."
        )
        return Standing.AT_RISK, reason, catch_up
    if keep_limit is None and (slot.kept or 0) >= KEPT_UNLIMITED:
        reason = f"The server keeps {kept} of WAL for the slot, without limit: its disk fills up."
        return Standing.AT_RISK, reason, catch_up
    return Standing.MET, f"The server keeps {kept} of WAL for the slot.", ()


def _has_died(facts: RecoverabilityFacts) -> bool:
    """Whether the last receiver ended without saying so, as one does that was killed or cut off."""
    return facts.receiver is not None and not facts.receiver.at_work and not facts.receiver.ended


def _who(facts: RecoverabilityFacts) -> str:
    receiver = facts.receiver
    if receiver is None:
        return "Nobody has received yet."
    if receiver.at_work:
        return f"A receiver is at work ({receiver.who})."
    if _has_died(facts):
        heard = time_words(receiver.age.total_seconds())
        return f"The receiver ({receiver.who}) has died or is cut off: it was last heard of {heard} ago."
    return f"No receiver is at work; the last one was {time_words(receiver.age.total_seconds())} ago."
