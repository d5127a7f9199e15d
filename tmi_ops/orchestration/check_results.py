"""The one way from an answer of ours to Dagster's asset check, its severity and its tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetKey,
    MetadataValue,
    TableColumn,
    TableRecord,
    TableSchema,
)

from tmi_ops.checks.finding import Answer, Finding, Outcome, Severity

_WELL = (Outcome.OK, Outcome.NOT_APPLICABLE)
LONGEST_TABLE = 200


def check_result(
    name: str,
    answer: Answer,
    key: AssetKey | None = None,
    metadata: Mapping[str, Any] | None = None,
    *,
    comes_by_itself: bool = False,
) -> AssetCheckResult:
    """Critical fails as an ERROR; a warning, and what nobody could look at, as a WARN.

    Args:
        comes_by_itself: an answer that is unknown will be known without anybody's doing, so it is nobody's task.
    """
    passed = answer.outcome in _WELL or comes_by_itself
    return AssetCheckResult(
        check_name=name,
        asset_key=key,
        passed=passed,
        severity=AssetCheckSeverity.ERROR if answer.outcome is Outcome.CRITICAL else AssetCheckSeverity.WARN,
        description=answer.seen if passed else with_advice(answer),
        metadata=dict(metadata or {}),
    )


def with_advice(answer: Answer) -> str:
    """One line: what is there, and the first step of what helps."""
    return f"{answer.seen} → {answer.advice.steps[0]}" if answer.advice else answer.seen


def summed_up(findings: Sequence[Finding], well: str) -> Answer:
    """Many findings as one answer: the worst of them, and how many there are besides.

    Args:
        well: what is said where none is more than a notice.
    """
    troubles = [one for one in findings if one.severity is not Severity.NOTICE]
    if not troubles:
        return Answer(well, tuple(findings))
    first, others = troubles[0], len(troubles) - 1
    seen = f"{first.subject}: {first.what}" if first.subject else first.what
    return Answer(f"{seen}; {others} more" if others else seen, tuple(findings))


def findings_metadata(findings: Sequence[Finding]) -> dict[str, MetadataValue[Any]]:
    """How many of each severity, and all of them as a table; of thousands the first."""
    columns = [TableColumn(name, "string") for name in ("severity", "subject", "what", "what helps")]
    records = [
        TableRecord(
            {
                "severity": one.severity.value,
                "subject": one.subject,
                "what": one.what,
                "what helps": "\n".join(one.advice.steps),
            }
        )
        for one in findings[:LONGEST_TABLE]
    ]
    counts = {
        "critical": Severity.CRITICAL,
        "warnings": Severity.WARNING,
        "notices": Severity.NOTICE,
    }
    return {
        **{
            name: MetadataValue.int(sum(one.severity is severity for one in findings))
            for name, severity in counts.items()
        },
        "findings": MetadataValue.table(records, TableSchema(columns)),
    }
