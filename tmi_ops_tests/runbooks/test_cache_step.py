"""No cache keeps an application out: none, one that is dead, one that is too slow, one that refuses us."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import SecretStr

from tmi_ops.cache import connection
from tmi_ops.cache.connection import connected
from tmi_ops.errors import SettingsError
from tmi_ops.progress import SilentReport
from tmi_ops.runbooks.execution import Action, Actions, begin, carry_out
from tmi_ops.runbooks.journal import Journal
from tmi_ops.runbooks.logbook import Logbook
from tmi_ops.runbooks.plan import Plan, Step
from tmi_ops.runbooks.steps import cache
from tmi_ops.runbooks.steps.cache import CACHE, CACHE_OF_ROWS, CACHE_STEP, LEFT_OUT
from tmi_ops.settings import CachePolicy, RedisSettings, Settings, load_settings
from tmi_ops.store.objects import open_store
from tmi_ops_tests.runbooks.slow_cache import accepting

REPORT = SilentReport()


def carried_out(settings: Settings, action: Action = CACHE, logbook: Logbook | None = None) -> tuple[Logbook, Journal]:
    """A run that drops from the cache, and then lets the application in."""
    store = open_store(settings.store, settings.environment)
    steps = (
        *cache.steps_after_jump(settings, wanted=True),
        Step(name="lift", does="let them in", effect="irreversible"),
    )
    plan = Plan(runbook="corruption", title="t", subject="s", steps=steps, untouched="u")
    actions: Actions = {CACHE_STEP: action, "lift": Action(lambda work: work.say("they are in"))}
    logbook = logbook or begin(settings, store, plan, REPORT)[0]
    return logbook, carry_out(settings, store, logbook, actions, REPORT, lambda _journal, _step: True)


def with_cache(settings: Settings, **changes: object) -> Settings:
    assert settings.redis is not None
    return settings.model_copy(update={"redis": settings.redis.model_copy(update=changes)})


def deferred(journal: Journal) -> str:
    """What a run that deferred its cache says is left; the application was let in all the same."""
    assert (journal.state, journal.deferred, journal.done) == ("done", (CACHE_STEP,), ("lift",))
    (left,) = journal.left
    assert "`tmi-ops cache reconcile" in left
    assert f"`tmi-ops recover resume {journal.run_id}`" in left
    return left


def test_unset_means_that_there_is_none(settings: Settings) -> None:
    without = settings.model_copy(update={"redis": None})
    assert cache.steps_after_jump(without, wanted=True) == cache.steps_after_rows(without, wanted=True) == ()
    assert cache.cache_notes(without, wanted=True) == (
        "No cache is configured (REDIS_HOST, TMI_REDIS_URL), so none is reconciled.",
    )
    assert carried_out(without)[1].done == ("lift",)


def test_a_dead_cache_is_told_in_the_plan_deferred_and_done_when_the_run_is_resumed(settings: Settings) -> None:
    dead = with_cache(settings, port=1)
    assert "does not answer now" in cache.cache_notes(dead, wanted=True)[0]
    logbook, journal = carried_out(dead)
    assert "could not be reached" in deferred(journal)
    evidence = json.loads((logbook.directory / "evidence.json").read_text())
    assert evidence["outcome"] == "recovered"
    assert evidence["left"] == list(journal.left)

    assert settings.redis is not None
    with connected(settings.redis) as client:
        client.set("cache:threat:1", "stale")
    _, again = carried_out(settings, logbook=logbook)
    assert (again.pending, again.left) == ((), ())
    assert sum(one.step == "lift" for one in again.attempts) == 1
    assert again.in_service_at == journal.in_service_at, "what is done later is no part of the RTO"
    with connected(settings.redis) as client:
        assert not client.exists("cache:threat:1")


@pytest.mark.slow
@pytest.mark.parametrize("answer_after_s", [None, 0.3], ids=["silent", "slow"])
def test_a_cache_that_takes_too_long_is_deferred(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, answer_after_s: float | None
) -> None:
    monkeypatch.setattr(connection, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(cache, "WITHIN_S", 0.5)
    assert settings.redis is not None
    with accepting(answer_after_s, settings.redis) as port:
        journal = carried_out(with_cache(settings, host="127.0.0.1", port=port))[1]
    assert "could not be reached" in deferred(journal)


def test_a_wrong_password_is_deferred_and_leaves_every_key(settings: Settings) -> None:
    journal = carried_out(with_cache(settings, password=SecretStr("wrong")), CACHE_OF_ROWS)[1]
    assert "refused" in deferred(journal)
    assert "--policy keep-sessions" in journal.left[0]


def test_left_out_on_a_persons_word_nothing_is_tried(settings: Settings) -> None:
    assert settings.redis is not None
    with connected(settings.redis) as client:
        client.set("cache:threat:1", "stays")
        deferred(carried_out(settings, LEFT_OUT)[1])
        assert client.getdel("cache:threat:1") == b"stays"
    assert cache.steps_after_jump(settings, wanted=False) == ()
    assert cache.left_undone(settings, wanted=False) == ("Reconcile the cache: `tmi-ops cache reconcile`.",)


def test_a_policy_that_cannot_be_followed_stops_the_plan_and_not_the_deed(settings: Settings) -> None:
    refused = settings.model_copy(update={"cache": CachePolicy(drop=("blacklist:*",))})
    with pytest.raises(SettingsError, match="TMI_OPS_CACHE_DROP"):
        cache.steps_after_rows(refused, wanted=True)


def test_what_listens_on_redis_port_by_chance_is_nobodys_cache(tmp_path: Path) -> None:
    assert load_settings({}, tmp_path).redis is None
    assert load_settings({"REDIS_DB": "3"}, tmp_path).redis == RedisSettings(db=3)
