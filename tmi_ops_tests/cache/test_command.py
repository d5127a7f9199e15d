"""`tmi-ops cache`, as a person or a script runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from tmi_ops.cli.main import main
from tmi_ops.settings import RedisSettings

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tmi_ops(
    redis: RedisSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Exit code, stdout and stderr of a command line run in this process."""
    assert redis.password is not None
    monkeypatch.chdir(tmp_path)
    told = {"HOST": redis.host, "PORT": str(redis.port), "PASSWORD": redis.password.get_secret_value()}
    for name, value in {**told, "DB": str(redis.db)}.items():
        monkeypatch.setenv(f"REDIS_{name}", value)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["cache", *arguments])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture
def filled(client: Redis) -> Redis:
    client.set("cache:user:1", "value", ex=60)
    client.set("session:1:2", "value", ex=60)
    client.set("blacklist:token:1", "value", ex=60)
    return client


def test_a_dry_run_shows_what_would_go_and_why_and_drops_nothing(tmi_ops: Command, filled: Redis) -> None:
    code, said, _ = tmi_ops("reconcile", "--dry-run")
    assert code == 0
    assert "2 keys would be dropped, 1 kept" in said
    assert "a revoked token must stay revoked" in said
    assert filled.dbsize() == 3


def test_it_asks_first_and_no_is_no(tmi_ops: Command, filled: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "n")
    code, _, _ = tmi_ops("reconcile")
    assert code != 0
    assert filled.dbsize() == 3


def test_told_yes_it_drops_and_says_how_many(tmi_ops: Command, filled: Redis) -> None:
    code, said, _ = tmi_ops("reconcile", "--yes")
    assert (code, filled.dbsize()) == (0, 1)
    assert "2 keys dropped, 1 kept" in said
    assert "All users must sign in again" in said
    assert "Nothing to drop" in tmi_ops("reconcile", "--yes")[1]


def test_the_option_wins_over_the_variable(tmi_ops: Command, filled: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMI_OPS_CACHE_SESSIONS", "drop-sessions")
    code, said, _ = tmi_ops("reconcile", "--yes", "--json", "--policy", "keep-sessions")
    facts = json.loads(said)
    assert (code, facts["dropped"], facts["policy"]["sessions"]) == (0, {"cache:user:*": 1}, "keep-sessions")
    assert filled.exists("session:1:2")


def test_nobody_can_be_asked_by_json(tmi_ops: Command, filled: Redis) -> None:
    code, _, said = tmi_ops("reconcile", "--json")
    assert (code, filled.dbsize()) == (2, 3)
    assert "--dry-run or --yes" in said


def test_a_check_shows_the_server_its_keys_and_what_to_mend(tmi_ops: Command, filled: Redis) -> None:
    filled.set("cache:threat:1", "for ever")
    code, said, _ = tmi_ops("check")
    assert code == 0
    for wanted in ("valkey", "append-only file", "blacklist:token:*", "1 of 1 have no TTL"):
        assert wanted in said
    assert tmi_ops("check", "--strict")[0] == 1


def test_a_check_speaks_json(tmi_ops: Command, filled: Redis) -> None:
    filled.set("cache:threat:1", "for ever")
    code, said, _ = tmi_ops("check", "--json")
    facts = json.loads(said)
    assert (code, facts["status"], facts["keys"]) == (0, "warning", 4)
    assert {one["pattern"]: one["without_ttl"] for one in facts["patterns"]}["cache:threat:*"] == 1


@pytest.mark.slow
def test_a_cache_that_is_away_is_said_in_plain_words(tmi_ops: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PORT", "1")
    for arguments in (["check"], ["reconcile", "--yes"]):
        code, _, said = tmi_ops(*arguments)
        assert code == 2
        assert "could not be reached" in said
        assert "HINT: Run `tmi-ops doctor`" in said
