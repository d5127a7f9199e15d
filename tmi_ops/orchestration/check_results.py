"""Findings and answers as Dagster's asset checks, severities and tables."""

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
    too_early: bool = False,
) -> AssetCheckResult:
    """Critical fails as ERROR; warnings and unknown fail as WARN.

    Args:
        too_early: the answer is not known yet but will be at the next reading, so the check passes.
    """
    passed = answer.outcome in _WELL or too_early
    return AssetCheckResult(
        check_name=name,
        asset_key=key,
        passed=passed,
        severity=AssetCheckSeverity.ERROR if answer.outcome is Outcome.CRITICAL else AssetCheckSeverity.WARN,
        description=answer.seen if passed else with_advice(answer),
        metadata=dict(metadata or {}),
    )


def with_advice(answer: Answer) -> str:
    """One line: what was seen, and the first step of the advice."""
    return f"{answer.seen} → {answer.advice.steps[0]}" if answer.advice else answer.seen


def summed_up(findings: Sequence[Finding], well: str) -> Answer:
    """Many findings as one answer: the worst of them, and the number of others.

    Args:
        well: the answer if there are only notices.
    """
    troubles = [one for one in findings if one.severity is not Severity.NOTICE]
    if not troubles:
        return Answer(well, tuple(findings))
    first, others = troubles[0], len(troubles) - 1
    seen = f"{first.subject}: {first.what}" if first.subject else first.what
    return Answer(f"{seen}; {others} more" if others else seen, tuple(findings))


def findings_metadata(findings: Sequence[Finding]) -> dict[str, MetadataValue[Any]]:
    """The number of each severity, and the findings as a table, cut at `LONGEST_TABLE`."""
    columns = [TableColumn(name, "string") for name in ("severity", "subject", "finding", "advice")]
    records = [
        TableRecord(
            {
                "severity": one.severity.value,
                "subject": one.subject,
                "finding": one.what,
                "advice": "\n".join(one.advice.steps),
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
