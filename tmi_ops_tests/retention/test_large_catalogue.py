from __future__ import annotations

import pytest

from tmi_ops.retention.facts import Backup
from tmi_ops.retention.planning import plan_retention
from tmi_ops.settings import RetentionPolicy
from tmi_ops_tests.retention.catalogues import NOW, SEGMENT, base, facts, logical, wal_file

DAYS = 400
PER_DAY = 250


@pytest.mark.slow
def test_a_hundred_thousand_wal_files_shrink_to_those_of_the_window_and_of_the_kept_bases() -> None:
    """Nightly backups of both kinds, chains of a week, one file of WAL every six minutes."""
    backups: list[Backup] = []
    chain: list[Backup] = []
    for days in range(DAYS, 0, -1):
        backups.append(logical(days, number=days))
        chain = [] if days % 7 == 0 else chain
        chain.append(base(days, (DAYS - days) * PER_DAY * SEGMENT + 50, chain=tuple(chain)))
        backups.append(chain[-1])
    wal = tuple(wal_file(number * SEGMENT, DAYS - number / PER_DAY) for number in range(DAYS * PER_DAY))

    known = facts(*backups, wal=wal)
    plan = plan_retention(known, RetentionPolicy(), NOW)

    assert len(plan.kept) + len(plan.removed) == len(backups)
    assert {decision.backup.kind for decision in plan.removed} == {"logical", "base"}
    (decision,) = plan.wal
    assert decision.kept + len(decision.removed) == len(wal)
    anchor = next(item.backup for item in plan.kept if "the recovery window begins at it" in item.reasons)
    in_window = [file for file in wal if file.end > anchor.start_lsn]
    kept_bases = [item.backup for item in plan.kept if item.backup.kind == "base"]
    gone = {file.key for file in decision.removed}
    assert gone.isdisjoint(file.key for file in in_window)
    assert decision.kept <= len(in_window) + 2 * len(kept_bases)
