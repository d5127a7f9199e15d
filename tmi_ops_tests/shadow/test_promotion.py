"""When a requested promotion happens, without a server."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tmi_ops.shadow.promotion import NO_FURTHER_S, Promotion
from tmi_ops.shadow.replay_state import Observed
from tmi_ops.shadow.report import Trouble
from tmi_ops_tests.recovery.point_in_time.pasts import lsn

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
HOLE = Trouble(kind="hole", what="It is missing.", since=NOON)
ALL = Observed(
    replayed=lsn(5),
    commit_at=NOON,
    waits=True,
    still_s=0.0,
    handed_to=lsn(5),
    more=False,
    archived_to=lsn(5),
)
BEHIND = replace(ALL, more=True)


def asked(*ends: int) -> Promotion:
    """A promotion of an archive that ends there, at one look after the other."""
    left = iter(ends)
    return Promotion(lambda: next(left))


def test_it_is_promoted_once_it_has_replayed_all_that_is_archived() -> None:
    assert asked(lsn(5), lsn(5)).why_now(ALL, None) == ""
    assert asked(lsn(5)).why_now(BEHIND, None) is None
    assert asked(lsn(6)).why_now(ALL, None) is None


def test_what_was_archived_since_it_was_asked_for_is_waited_for_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grown = asked(lsn(5), lsn(6), lsn(6))
    assert grown.why_now(ALL, None) is None
    assert grown.why_now(replace(ALL, handed_to=lsn(6)), None) == ""
    begun = time.monotonic()
    late = asked(lsn(5))
    monkeypatch.setattr("time.monotonic", lambda: begun + NO_FURTHER_S + 1)
    assert late.why_now(ALL, None) == "", "its receiver would never end; nobody looks again"


def test_one_that_is_stopped_or_stands_still_is_promoted_as_far_as_it_came() -> None:
    assert asked(lsn(6)).why_now(ALL, HOLE) == "It is missing."
    away = HOLE.model_copy(update={"kind": "store away"})
    assert asked(lsn(6)).why_now(ALL, away) is None, "a store comes back"
    still = replace(BEHIND, still_s=NO_FURTHER_S)
    assert asked(lsn(6)).why_now(still, None) is None
    stood = asked(lsn(6)).why_now(replace(still, still_s=NO_FURTHER_S + 1), None)
    assert stood is not None
    assert "did not get past 0/" in stood
