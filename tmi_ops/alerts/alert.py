"""What an alert says."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, StringConstraints

from tmi_ops.checks.finding import Severity

KEY = r"[a-z0-9][a-z0-9._-]{0,99}"
# Long enough for a reason and a command, short enough for every channel.
LONGEST_TEXT = 1500
# The key of the alert that says what the recorded verdict on the schema says, too.
SCHEMA_DRIFT = "schema-drift"


def _fitting(text: str) -> str:
    """Cut rather than refused: what failed may say much, and the alert must still go out."""
    text = text.strip() or "not known"
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 4]} ..."


_Text = Annotated[str, AfterValidator(_fitting)]


def _named_before(severity: object) -> object:
    """Records of earlier releases say `info`."""
    return Severity.NOTICE if severity == "info" else severity


class Alert(BaseModel):
    """One thing that is wrong, in the words of whoever found it. Every text is shown to people: no secrets.

    `key` names the trouble, not the occasion (`rpo`, `slot-lag`, `drill-failed`): one that is open is not sent again.
    `severity`: CRITICAL wakes somebody, WARNING waits for the morning, NOTICE is no hurry.
    `summary` is a line without a full stop. `at_risk`, `done` (by tmi_ops, already) and `to_do` (by the reader, a
    command where there is one) are sentences. `since` is when the trouble began, not when it was seen.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: Annotated[str, StringConstraints(pattern=rf"^{KEY}$")]
    severity: Annotated[Severity, BeforeValidator(_named_before)]
    summary: _Text
    at_risk: _Text
    since: AwareDatetime
    done: _Text
    to_do: _Text
