"""How many of what make a database of a given size."""

from __future__ import annotations

from dataclasses import dataclass

# What PostgreSQL 17 reports as the size of a database with TMI's tables, the first page of each of their indexes and
# the few people every organisation has; and what one threat model with its share of everything else adds, tables,
# indexes and TOAST together. Measured; tests hold them to 10 %.
FIXED_BYTES = 16_000_000
BYTES_A_THREAT_MODEL = 279_000
FEWEST_THREAT_MODELS = 12


@dataclass(frozen=True)
class DatasetPlan:
    """The counts a generation starts from; everything else follows from chance."""

    seed: int
    size: int
    threat_models: int
    users: int
    groups: int
    teams: int
    projects: int
    surveys: int
    system_audit_entries: int
    usability_feedback: int


def plan_dataset(size: int, seed: int) -> DatasetPlan:
    """The plan of a database of `size` bytes; below some 19 MB, of the smallest that has rows in every table."""
    models = max(FEWEST_THREAT_MODELS, round((size - FIXED_BYTES) / BYTES_A_THREAT_MODEL))
    return DatasetPlan(
        seed=seed,
        size=size,
        threat_models=models,
        users=60 + models // 2,
        groups=8 + models // 20,
        teams=8 + models // 12,
        projects=10 + models // 4,
        surveys=3 + models // 150,
        system_audit_entries=20 + models // 2,
        usability_feedback=20 + models // 3,
    )
