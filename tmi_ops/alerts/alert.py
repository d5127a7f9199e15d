"""The content of an alert."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, StringConstraints

from tmi_ops.checks.finding import Severity

KEY = r"[a-z0-9][a-z0-9._-]{0,99}"
# Long enough for a reason and a command, short enough for every channel.
LONGEST_TEXT = 1500
# The recorded answer on the schema reports the same as the alert of this key.
SCHEMA_DRIFT = "schema-drift"


def _fitting(text: str) -> str:
    """Cut, not refuse, a long text: errors can be long, and the alert must be sent all the same."""
    text = text.strip() or "unknown"
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 4]} ..."


_Text = Annotated[str, AfterValidator(_fitting)]


def _named_before(severity: object) -> object:
    """Records of earlier releases have `info`."""
    return Severity.NOTICE if severity == "info" else severity


class Alert(BaseModel):
    """One problem. Every text is shown to people: no secrets.

    `key` names the problem, not the occasion (`rpo`, `slot-lag`, `drill-failed`): an open alert is not sent again.
    `severity`: CRITICAL wakes somebody, WARNING can wait for the morning, NOTICE is not urgent.
    `summary` is a line without a full stop. `at_risk`, `done` (already, by tmi_ops) and `to_do` (by the reader, with a
    command if there is one) are sentences. `since` is when the problem began, not when it was found.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: Annotated[str, StringConstraints(pattern=rf"^{KEY}$")]
    severity: Annotated[Severity, BeforeValidator(_named_before)]
    summary: _Text
    at_risk: _Text
    since: AwareDatetime
    done: _Text
    to_do: _Text
