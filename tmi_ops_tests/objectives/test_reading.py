"""What is read of a real server and store, step by step, and with the server gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tmi_ops.objectives.history import read_history, record_reading
from tmi_ops.objectives.reading import read_recoverability
from tmi_ops.objectives.rpo import judge_rpo
from tmi_ops.objectives.rto import forecast_rto
from tmi_ops.objectives.standing import Standing
from tmi_ops.settings import OBJECTIVES, Settings
from tmi_ops.store.backup_documents import record_verification
from tmi_ops.store.manifest import Verification
from tmi_ops.wal.layout import lease_key
from tmi_ops_tests.objectives.conftest import Told

pytestmark = pytest.mark.slow
PRODUCTION = OBJECTIVES["production"]


def test_an_empty_store_holds_nothing(told: Told) -> None:
    facts = told.facts["nothing"]
    assert (facts.newest, facts.verified, facts.way, facts.earliest_at, facts.storage) == (None, None, None, None, {})
    assert facts.server is not None
    assert facts.server.slot is None


def test_a_receiver_is_known_before_there_is_a_base_backup(told: Told) -> None:
    assert told.facts["nothing"].receiver is None
    running = told.facts["a receiver, but no base"].receiver
    assert running is not None
    assert running.at_work


def test_a_base_reaches_to_its_end_and_counts_once_it_is_proven(told: Told) -> None:
    facts = told.facts["a base"]
    assert told.base is not None
    assert facts.newest is not None
    assert (facts.newest.backup_id, facts.newest.verified, facts.verified) == (told.base.backup_id, False, None)
    assert facts.newest.at >= told.base.consistent_at
    assert judge_rpo(facts, PRODUCTION).standing is Standing.BREACHED


def test_a_server_with_which_the_archive_is_level_makes_now_the_newest_moment(told: Told) -> None:
    facts = told.facts["caught up"]
    assert facts.server is not None
    assert facts.newest is not None
    assert (facts.server.level, facts.server.behind, facts.newest.shown_by) == (True, 0, "server")
    assert facts.newest.at == facts.server.at
    assert facts.newest.means == "WAL"
    assert facts.receiver is not None
    assert not facts.receiver.at_work


def test_a_drill_makes_the_base_and_its_wal_count_and_the_forecast_a_measured_one(told: Told) -> None:
    facts = told.facts["drilled"]
    assert told.evidence is not None
    assert facts.verified == facts.newest
    assert judge_rpo(facts, PRODUCTION).standing is Standing.MET
    (drill,) = facts.drills
    assert (drill.drill_id, drill.sound) == (told.evidence.drill_id, True)
    forecast = forecast_rto(facts, PRODUCTION)
    assert (forecast.standing, forecast.basis) == (Standing.MET, "measured")
    assert facts.last_verification is not None
    assert facts.last_verification.backup_id == told.evidence.backup_id


def test_what_the_server_wrote_since_is_not_in_the_store(told: Told) -> None:
    facts = told.facts["written since"]
    assert told.written_at is not None
    assert facts.server is not None
    assert facts.verified is not None
    assert facts.server.behind
    assert not facts.server.level
    assert facts.verified.shown_by == "receiver"
    assert facts.verified.at < told.written_at


def test_with_the_server_gone_the_receivers_word_stands(told: Told) -> None:
    before, facts = told.facts["written since"], told.facts["the server is gone"]
    assert facts.server is None
    assert facts.server_problem is not None
    assert "could not be reached" in facts.server_problem
    assert (facts.verified, facts.way, facts.earliest_at) == (before.verified, before.way, before.earliest_at)


def test_without_any_word_the_commits_in_the_wal_tell(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with WAL that archive_command pushed: nobody received it, and the server is gone."""
    monkeypatch.setattr("tmi_ops.objectives.reading.read_lease", lambda *_: None)
    later = datetime.now(UTC) + timedelta(minutes=5)
    facts = read_recoverability(told.settings, told.store, later)
    assert told.base is not None
    assert facts.newest is not None
    assert facts.newest.shown_by == "commit"
    assert told.base.consistent_at <= facts.newest.at < told.facts["caught up"].read_at


def test_the_archive_is_not_searched_where_the_receiver_knows(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tmi_ops.objectives.reading.with_times", lambda *_: pytest.fail("segments were fetched"))
    read_recoverability(told.settings, told.store, datetime.now(UTC) + timedelta(hours=1))


def test_the_store_is_counted_by_kind(told: Told) -> None:
    facts = told.facts["drilled"]
    assert set(facts.storage) == {"base", "wal"}
    whole = read_recoverability(told.settings, told.store, whole=True).storage
    assert set(whole) == {"base", "wal", "other"}
    assert told.base is not None
    assert facts.storage["base"].size >= told.base.total_size
    assert all(usage.added_day == usage.size > 0 for usage in facts.storage.values())


def test_a_base_that_a_proof_has_found_bad_leads_nowhere(told: Told) -> None:
    assert told.base is not None
    verification = Verification(
        backup_id=told.base.backup_id,
        outcome="failed",
        verified_at=datetime.now(UTC),
        server_version="17.10",
        tmi_ops_version="0",
        manifest_sha256="",
    )
    record_verification(told.store, verification)
    try:
        facts = read_recoverability(told.settings, told.store)
    finally:
        told.store.delete(
            [sorted(item.key for item in told.store.list_objects("base/") if "/verdict-" in item.key)[-1]]
        )
    assert (facts.newest, facts.verified, facts.way) == (None, None, None)
    assert facts.failed == (told.base.backup_id,)
    assert any("failed verification" in problem for problem in facts.problems)


def test_a_broken_manifest_is_told_and_the_rest_is_read(told: Told) -> None:
    key = "base/20200101T000000Z-base-0000/manifest.json"
    told.store.put_bytes(key, b"{}")
    try:
        facts = read_recoverability(told.settings, told.store)
    finally:
        told.store.delete([key])
    assert facts.verified is not None
    assert any(key in problem for problem in facts.problems)


def test_a_lease_that_cannot_be_understood_takes_only_the_receiver_along(told: Told) -> None:
    assert told.base is not None
    key = lease_key(told.base.system_identifier)
    whole = told.store.get_bytes(key)
    told.store.put_bytes(key, b"no lease")
    try:
        facts = read_recoverability(told.settings, told.store)
    finally:
        told.store.put_bytes(key, whole)
    assert facts.receiver is None
    assert facts.verified is not None
    assert facts.problems


def test_a_reading_of_the_real_store_is_kept_and_found_again(told: Told) -> None:
    facts = told.facts["drilled"]
    record_reading(told.store, facts, PRODUCTION.rpo)
    try:
        (day,) = read_history(told.store, facts.server_now)
    finally:
        told.store.delete([item.key for item in told.store.list_objects("objectives/")])
    assert facts.verified is not None
    assert day.last.newest_at == facts.verified.at
    assert set(day.storage) == set(facts.storage)


def test_another_clusters_server_is_told_from_the_one_that_was_backed_up(told: Told, settings: Settings) -> None:
    stranger = settings.model_copy(update={"store": told.settings.store})
    facts = read_recoverability(stranger, told.store)
    assert facts.server is not None
    assert (facts.server.behind, facts.server.level) == (None, False)
    assert any("no base backup of this server's cluster" in problem for problem in facts.problems)
