"""The values a column may hold (guide: Constraint Enforcement), as CHECK constraints.

Which columns hold each domain:

- framework: `threat_models.threat_model_framework`.
- role: `role` of the two access lists, `threat_model_access` and `survey_response_access`. Other columns
  called `role` are other domains: a team member's role defaults to 'engineer', a Timmy message's role is its speaker.
- severity, likelihood, risk level: the columns of those names in `threats`, the only table that has them.
- diagram type: `diagrams.type`. The `type` of assets and repositories is another domain.

No default of these columns lies outside its domain. NULL passes every CHECK, so a nullable column stays nullable.
"""

from __future__ import annotations

from sqlalchemy import CheckConstraint

FRAMEWORKS = ("CIA", "STRIDE", "LINDDUN", "DIE", "PLOT4ai")
ACCESS_ROLES = ("owner", "writer", "reader")
SEVERITIES = ("Low", "Medium", "High", "Critical", "Unknown", "None")
LIKELIHOODS = ("low", "medium", "high")
RISK_LEVELS = ("low", "medium", "high", "critical")
DIAGRAM_TYPES = ("DFD-1.0.0",)


def allowed_values(table: str, column: str, values: tuple[str, ...], *, or_null: bool = False) -> CheckConstraint:
    """A CHECK that `column` holds one of `values`, named as GORM names checks.

    Args:
        or_null: write the NULL case out, as the guide does for the risk assessment values; it changes nothing.
    """
    listed = ", ".join(f"'{value}'" for value in values)
    condition = f"{column} IN ({listed})"
    return CheckConstraint(
        f"{column} IS NULL OR {condition}" if or_null else condition,
        name=f"chk_{table}_{column}",
        info={"column": column, "values": values},
    )
