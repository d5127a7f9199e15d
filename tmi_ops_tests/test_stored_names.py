"""Names that are stored stay as older releases wrote them, whatever the code calls them: those read what we write."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from tmi_ops.checks.finding import Outcome
from tmi_ops.drill.evidence import DrillTarget
from tmi_ops.health.record import LastAnswer, LastAnswers
from tmi_ops.objectives.acting import Memory
from tmi_ops.objectives.cures import Action
from tmi_ops.objectives.history import Hour
from tmi_ops.orchestration.policies import Lane
from tmi_ops.runbooks.codes import LookedAt
from tmi_ops.runbooks.plan import Plan
from tmi_ops.shadow.place import Request
from tmi_ops.store.stored_catalogue import _Folder

NOW = datetime(2026, 11, 28, 20, 0, tzinfo=UTC)
STORED: dict[str, tuple[BaseModel, dict[str, Any]]] = {
    "last-verdicts.json": (
        LastAnswers(answers={"locks": LastAnswer(status=Outcome.OK, summary="none", at=NOW)}),
        {"verdicts": {"locks": {"status": "ok", "summary": "none", "advice": "", "at": "2026-11-28T20:00:00Z"}}},
    ),
    "an hour of the objectives": (Hour(measured=60.0, unverified=30.0), {"unproven": 30.0}),
    "a drill's target": (DrillTarget(text="noon", kind="name", chosen="asked for"), {"words": "noon"}),
    "a runbook's plan": (
        Plan(runbook="rows", title="", subject="", steps=(), untouched="", requests={"digest": "1"}),
        {"wishes": {"digest": "1"}},
    ),
    "the catalogue": (
        _Folder(id="x", size=1, objects=1, touched_at=NOW, manifest_at=None, verification="x/verdict-1", held=False),
        {"verdict": "x/verdict-1"},
    ),
    "a request to a shadow": (Request(number="1", action="copy", into="/x"), {"wish": "copy"}),
    "a plan that was looked at": (
        LookedAt(name="P", job="rows", environment="shop", texts=("a",), ends=NOW),
        {"words": ["a"]},
    ),
}


@pytest.mark.parametrize("what", STORED)
def test_a_document_has_the_names_it_always_had(what: str) -> None:
    fact, old = STORED[what]
    body = fact.model_dump_json()
    assert type(fact).model_validate_json(body) == fact
    written = fact.model_dump(mode="json")
    assert {name: written[name] for name in old} == old


def test_a_cursor_and_a_tag_of_an_older_release_are_understood() -> None:
    memory = Memory.of('{"attempts": {"prove a backup": {"times": 2, "at": "2026-11-28T20:00:00Z"}}}')
    assert memory.attempts[Action.VERIFY_BACKUP].times == 2
    assert Lane("proof") is Lane.VERIFICATION
    with pytest.raises(ValueError, match="nonsense"):
        Lane("nonsense")
