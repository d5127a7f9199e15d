"""What tests say of a diagnosis."""

from __future__ import annotations

from collections.abc import Sequence

from tmi_ops.checks.finding import Outcome
from tmi_ops.diagnosis.finding import Diagnosis


def statements_of(fix: Sequence[str]) -> list[str]:
    """The SQL of a fix: what a person would copy into psql."""
    verbs = ("ALTER ", "GRANT ", "CREATE ", "SELECT ")
    return [line for line in fix if line.startswith(verbs) and ";" in line]


def assert_cause(diagnosis: Diagnosis, name: str, *words: str, outcome: Outcome = Outcome.CRITICAL) -> Sequence[str]:
    """The link named first is `name`, and its seen, cause and fix hold these words. Returns the fix."""
    cause = diagnosis.root_cause
    assert cause is not None, "the doctor found nothing"
    assert (cause.name, cause.outcome) == (name, outcome), cause.answer
    said = "\n".join((cause.answer.seen, cause.answer.cause, *cause.answer.advice.steps))
    for word in words:
        assert word in said, said
    assert cause.answer.advice.steps
    return cause.answer.advice.steps
