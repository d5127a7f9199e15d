"""The stream of WAL: told of before the server's disk or the archive suffers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tmi_ops.objectives.cures import Action
from tmi_ops.objectives.facts import ArchiverReading, RecoverabilityFacts, ServerReading
from tmi_ops.objectives.server import _archiver
from tmi_ops.objectives.standing import Standing
from tmi_ops.objectives.stream import judge_stream
from tmi_ops.settings import Objectives
from tmi_ops_tests.objectives.facts import (
    DEVELOPMENT,
    GB,
    MB,
    PRODUCTION,
    facts,
    receiver,
    server,
    slot,
    without_server,
)

IDLE = receiver(at_work=False)
MIB = 1 << 20
HERE = server().lsn


def archiving(behind: int | None, archived_to: int | None, *, unknown: bool = False) -> ServerReading:
    """A server without our slot that archives WAL itself."""
    return server(slot=None, behind=behind, archiver=ArchiverReading(16 * MIB, archived_to, unknown))


CASES = {
    "in use": (facts(), PRODUCTION, Standing.MET, None, "A receiver is running"),
    "not in use, between two catch-ups": (
        facts(server=server(slot=slot(active=False)), receiver=IDLE),
        PRODUCTION,
        Standing.MET,
        None,
        "No receiver is running",
    ),
    "the receiver was killed": (
        facts(server=server(slot=slot(active=False)), receiver=replace(IDLE, ended=False)),
        PRODUCTION,
        Standing.AT_RISK,
        Action.CATCH_UP_WAL,
        "has died or is cut off",
    ),
    "three quarters of what the server keeps": (
        facts(server=server(slot=slot(active=False, kept=8 * GB, left=2 * GB)), receiver=IDLE),
        PRODUCTION,
        Standing.AT_RISK,
        Action.CATCH_UP_WAL,
        "after 2.0 GB more it invalidates the slot",
    ),
    "the receiver itself does not keep up": (
        facts(server=server(slot=slot(kept=8 * GB, left=2 * GB))),
        PRODUCTION,
        Standing.AT_RISK,
        Action.START_RECEIVER,
        "invalidates the slot",
    ),
    "archived by archive_command": (
        facts(server=archiving(behind=32 * MIB, archived_to=HERE - 32 * MIB), receiver=None),
        PRODUCTION,
        Standing.MET,
        None,
        "The server's archive_command works; the archive lacks 33.6 MB of WAL.",
    ),
    "archive_command is late": (
        facts(server=archiving(behind=32 * MIB + 1, archived_to=HERE - 48 * MIB), receiver=None),
        PRODUCTION,
        Standing.AT_RISK,
        Action.START_RECEIVER,
        "no slot of tmi_ops",
    ),
    "archive_command stores elsewhere": (
        facts(server=archiving(behind=20 * MIB, archived_to=HERE - 20 * MIB + 1), receiver=None),
        PRODUCTION,
        Standing.AT_RISK,
        Action.START_RECEIVER,
        "no slot of tmi_ops",
    ),
    "archive_command fails": (
        facts(server=archiving(behind=MIB, archived_to=None), receiver=None),
        PRODUCTION,
        Standing.AT_RISK,
        Action.START_RECEIVER,
        "no slot of tmi_ops",
    ),
    "archive_command beside a receiver that died": (
        facts(server=archiving(behind=MIB, archived_to=HERE - MIB), receiver=replace(IDLE, ended=False)),
        PRODUCTION,
        Standing.AT_RISK,
        Action.START_RECEIVER,
        "no slot of tmi_ops",
    ),
    "archive_command after a crash": (
        facts(server=archiving(behind=MIB, archived_to=None, unknown=True), receiver=None),
        PRODUCTION,
        Standing.UNKNOWN,
        None,
        "has not finished a segment since its statistics began",
    ),
    "archive_command works, and nothing shows where the WAL goes": (
        facts(server=archiving(behind=None, archived_to=HERE), receiver=None),
        PRODUCTION,
        Standing.AT_RISK,
        Action.START_RECEIVER,
        "no slot of tmi_ops",
    ),
    "kept without limit": (
        facts(server=server(slot=slot(active=False, kept=9 * GB), keep_limit=None), receiver=IDLE),
        PRODUCTION,
        Standing.AT_RISK,
        Action.CATCH_UP_WAL,
        "without limit: its disk is filling up",
    ),
    "little kept without limit": (
        facts(server=server(slot=slot(kept=90 * MB), keep_limit=None)),
        PRODUCTION,
        Standing.MET,
        None,
        "90.0 MB",
    ),
    "about to be lost": (
        facts(server=server(slot=slot(active=False, status="unreserved")), receiver=IDLE),
        PRODUCTION,
        Standing.AT_RISK,
        Action.CATCH_UP_WAL,
        "about to be lost",
    ),
    "lost": (
        facts(server=server(slot=slot(active=False, status="lost")), receiver=IDLE),
        PRODUCTION,
        Standing.BREACHED,
        Action.BACK_UP_INCREMENTAL,
        "invalidated the slot",
    ),
    "no slot, and the RPO needs one": (
        facts(server=server(slot=None), receiver=None),
        PRODUCTION,
        Standing.AT_RISK,
        Action.START_RECEIVER,
        "no slot of tmi_ops",
    ),
    "no slot, and dumps are enough": (
        facts(server=server(slot=None), receiver=None),
        DEVELOPMENT,
        Standing.MET,
        None,
        "does not require it",
    ),
    "the database is down": (
        without_server(),
        PRODUCTION,
        Standing.UNKNOWN,
        Action.REACH_DATABASE,
        "could not be queried",
    ),
}


@pytest.mark.parametrize(("found", "objectives", "standing", "cure", "words"), CASES.values(), ids=CASES.keys())
def test_the_standing_its_reason_and_the_cheapest_cure(
    found: RecoverabilityFacts, objectives: Objectives, standing: Standing, cure: Action | None, words: str
) -> None:
    reading = judge_stream(found, objectives)
    assert (reading.standing, reading.cures[0].action if reading.cures else None) == (standing, cure)
    assert words in reading.reason


@pytest.mark.parametrize(("behind", "standing"), [(16 * MB, Standing.MET), (16 * MB + 1, Standing.BREACHED)])
def test_a_slot_that_keeps_less_than_the_archive_lacks_is_a_breach(behind: int, standing: Standing) -> None:
    """Another store's receiver moved it on, or it was made anew."""
    reading = judge_stream(facts(server=server(slot=slot(kept=16 * MB), behind=behind)), PRODUCTION)
    assert reading.standing is standing


@pytest.mark.parametrize(
    ("last", "archived_to"),
    [
        ("000000010000000000000005", 6 * 16 * MIB),
        ("000000010000000000000005.00000028.backup", 6 * 16 * MIB),
        ("00000002.history", None),
        (None, None),
    ],
)
def test_what_the_archiver_did_last_has_an_end(last: str | None, archived_to: int | None) -> None:
    assert _archiver(16 * MIB, last, is_unknown=False) == ArchiverReading(16 * MIB, archived_to)
