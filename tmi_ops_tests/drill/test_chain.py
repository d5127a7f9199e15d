"""What a heartbeat chain shows. Heartbeats are written at 12:00, 12:01, ... and numbered from 1."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from tmi_ops.drill.chain import COMMITTED_WITHIN, Bound, check_chain, heartbeat_hash
from tmi_ops_tests.drill.chains import chain, lsn, minute

SOURCE = chain(10)


def test_the_beats_before_the_target_and_no_other_prove_the_copy() -> None:
    assert check_chain(SOURCE[:5], Bound(time=minute(4.5)), SOURCE) == ()
    assert check_chain(SOURCE[:5], Bound(lsn=lsn(4.5)), SOURCE) == ()
    assert check_chain(SOURCE, Bound(), SOURCE) == ()


def test_a_missing_beat_in_the_middle_is_found_without_the_source() -> None:
    (found,) = check_chain([*SOURCE[:2], *SOURCE[3:5]], Bound(time=minute(4.5)))
    assert found == "1 heartbeat is missing after heartbeat 2 of 2026-11-24 12:01:00.000000 UTC."


def test_a_changed_beat_breaks_the_chain_even_when_its_hash_was_made_anew() -> None:
    moved = replace(SOURCE[2], written_at=minute(2.1))
    (found,) = check_chain([*SOURCE[:2], moved, *SOURCE[3:]], Bound())
    assert "its hash does not match its content" in found
    forged = replace(moved, hash=heartbeat_hash(moved.id, moved.written_at, moved.lsn, moved.previous))
    (found,) = check_chain([*SOURCE[:2], forged, *SOURCE[3:]], Bound())
    assert "the chain is broken there" in found


def test_the_last_beat_before_the_target_is_missed_when_only_the_source_has_it() -> None:
    assert check_chain(SOURCE[:4], Bound(time=minute(4.5))) == ()
    (found,) = check_chain(SOURCE[:4], Bound(time=minute(4.5)), SOURCE)
    assert found.startswith("heartbeat 5 of 2026-11-24 12:04:00")
    assert "is missing" in found
    assert len(check_chain(SOURCE[:2], Bound(time=minute(4.5)), SOURCE)) == 3


def test_a_beat_is_missed_by_lsn_when_the_next_one_was_written_before_the_target() -> None:
    (found,) = check_chain(SOURCE[:4], Bound(lsn=lsn(5)), SOURCE)
    assert "heartbeat 5" in found
    (found,) = check_chain(SOURCE[:4], Bound(lsn=lsn(4.5), reached_at=minute(4.5)), SOURCE)
    assert "heartbeat 5" in found


def test_a_beat_whose_commit_may_have_come_after_the_target_is_not_missed() -> None:
    target = SOURCE[4].written_at + COMMITTED_WITHIN / 2
    assert check_chain(SOURCE[:4], Bound(time=target), SOURCE) == ()
    assert check_chain(SOURCE[:5], Bound(time=target), SOURCE) == ()


def test_a_beat_after_the_target_is_found_without_the_source() -> None:
    (found,) = check_chain(SOURCE[:6], Bound(time=minute(5) - timedelta(microseconds=1)))
    assert found.startswith("heartbeat 6")
    assert "was written after the target" in found
    (found,) = check_chain(SOURCE[:6], Bound(lsn=lsn(5)))
    assert found.startswith("heartbeat 6")


def test_a_chain_whose_oldest_beats_were_removed_proves_as_much() -> None:
    assert check_chain(SOURCE[2:5], Bound(time=minute(4.5)), SOURCE[4:]) == ()
    (found,) = check_chain(SOURCE[2:4], Bound(time=minute(4.5)), SOURCE[4:])
    assert "heartbeat 5" in found
    (found, _) = check_chain(SOURCE[2:5], Bound(time=minute(4.5)), SOURCE)
    assert "heartbeat 1" in found


def test_a_copy_of_another_history_is_told_from_the_source() -> None:
    other = [*SOURCE[:3], *(replace(beat, hash="f" * 64) for beat in SOURCE[3:])]
    assert any("different histories" in found for found in check_chain(SOURCE[:5], Bound(time=minute(4.5)), other))
    (found,) = check_chain(SOURCE[:5], Bound(time=minute(4.5)), SOURCE[:3])
    assert "is unknown to the source" in found
