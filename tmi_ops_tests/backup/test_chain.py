from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tmi_ops.backup.chain import ChainFacts, continue_chain
from tmi_ops.store.manifest import BaseManifest

SYSTEM = "7711554964273702704"


def _base(number: int, *, upon: BaseManifest | None = None, system: str = SYSTEM) -> BaseManifest:
    moment = datetime(2026, 11, 20 + number, 2, tzinfo=UTC)
    return BaseManifest(
        backup_id=f"2026112{number}T020000Z-base-000{number}",
        environment="development",
        server_version="17.10",
        server_version_num=170010,
        started_at=moment,
        finished_at=moment,
        duration_seconds=1.0,
        parent=upon.backup_id if upon else None,
        tmi_ops_version="0",
        format="incremental" if upon else "full",
        chain=(*upon.chain, upon.backup_id) if upon else (),
        system_identifier=system,
        timeline=1,
        start_lsn="0/2000028",
        stop_lsn="0/2000120",
        consistent_at=moment,
        wal_segment_size=16 << 20,
        data_checksums=True,
        cluster_size=1,
        role="postgres",
        objects=(),
    )


FULL = _base(1)
SECOND = _base(2, upon=FULL)
THIRD = _base(3, upon=SECOND)
CHAIN = (SECOND, THIRD, FULL)


def _facts(**changes: object) -> ChainFacts:
    facts = {
        "server_version_num": 170010,
        "summarize_wal": True,
        "system_identifier": SYSTEM,
        "bases": CHAIN,
    }
    return ChainFacts(**{**facts, **changes})  # type: ignore[arg-type]


def test_the_newest_backup_of_the_cluster_is_built_upon_whatever_other_clusters_did_since() -> None:
    other = _base(9, system="1")
    upon = continue_chain(_facts(bases=(other, *CHAIN)))
    assert upon.parent == THIRD
    assert upon.chain == (FULL.backup_id, SECOND.backup_id, THIRD.backup_id)
    assert upon.full_because is None


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"server_version_num": 160004}, "PostgreSQL 16 cannot"),
        ({"summarize_wal": False}, "ALTER SYSTEM SET summarize_wal = on; SELECT pg_reload_conf();"),
        ({"bases": ()}, "no base backup yet"),
        ({"system_identifier": "2"}, "no base backup yet"),
        ({"longest": 3}, "reached its maximum of 3"),
        ({"bases": (THIRD, FULL)}, f"{SECOND.backup_id}, which the chain needs, is missing"),
        ({"unusable": {FULL.backup_id}}, f"{FULL.backup_id}, which the chain needs, is incomplete"),
    ],
)
def test_a_chain_that_cannot_be_continued_says_why_a_full_backup_is_taken(
    changes: dict[str, object], because: str
) -> None:
    upon = continue_chain(_facts(**changes))
    assert upon.parent is None
    assert upon.chain == ()
    assert because in (upon.full_because or "")


def test_a_chain_one_short_of_its_longest_is_still_continued() -> None:
    assert continue_chain(_facts(longest=4)).parent == THIRD
