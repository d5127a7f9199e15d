"""Which keys go and which stay."""

from __future__ import annotations

from pathlib import Path

import pytest

import tmi_ops
from tmi_ops.cache.rules import Action, Rules
from tmi_ops.error_codes import Code
from tmi_ops.errors import SettingsError
from tmi_ops.profile.cache_keys import KeyPurpose as Purpose
from tmi_ops.profile.tmi import CACHE as KEY_PATTERNS
from tmi_ops.settings import CachePolicy

PAGE = Path(tmi_ops.__file__).parent.parent / "docs" / "cache.md"

DROPPED = ["cache:user:email:a@example.com", "cache:anything", "tmi:settings:smtp", "temp:import:1"]
OF_SESSIONS = ["session:1:2", "auth:token:1", "auth:refresh:1", "refresh_token:1", "user_groups:a@example.com"]
KEPT = [
    "blacklist:token:1",
    "blacklist:credential:1",
    "rate_limit:api:1:x",
    "ip:ratelimit:60s:::1",
    "pkce:1",
    "lock:a:1",
]
UNKNOWN = ["acme:1", "cached:1", "session", "", "refresh_tokens:1"]


def action(key: str, policy: CachePolicy | None = None) -> Action | None:
    rule = Rules(policy or CachePolicy()).rule_of(key.encode())
    return rule.action if rule else None


def test_a_key_is_counted_by_the_closest_of_the_declared_patterns() -> None:
    rules = Rules(CachePolicy(drop=("acme:*",)))
    for declared in KEY_PATTERNS:
        rule = rules.rule_of(declared.pattern.replace("*", "1").encode())
        assert rule is not None
        assert rule.declared == declared


def test_copies_go_revocations_and_limits_stay_and_strangers_are_left_alone() -> None:
    assert {key: action(key) for key in DROPPED} == dict.fromkeys(DROPPED, Action.DROP)
    assert {key: action(key) for key in KEPT} == dict.fromkeys(KEPT, Action.KEEP)
    assert {key: action(key) for key in UNKNOWN} == dict.fromkeys(UNKNOWN, None)


@pytest.mark.parametrize(("sessions", "wanted"), [("drop-sessions", Action.DROP), ("keep-sessions", Action.KEEP)])
def test_sessions_go_or_stay_by_policy(sessions: str, wanted: Action) -> None:
    policy = CachePolicy.model_validate({"sessions": sessions})
    assert {action(key, policy) for key in OF_SESSIONS} == {wanted}
    assert action("cache:user:1", policy) is Action.DROP
    assert action("blacklist:token:1", policy) is Action.KEEP


def test_what_the_policy_names_wins_over_what_is_declared_and_keeping_wins_over_dropping() -> None:
    policy = CachePolicy(drop=("acme:*", "lock:*", "whole-key"), keep=("acme:ledger:*", "cache:diagram:*"))
    told = {
        "acme:1": Action.DROP,
        "acme:ledger:1": Action.KEEP,
        "lock:a:1": Action.DROP,
        "whole-key": Action.DROP,
        "whole-key:1": None,
        "cache:diagram:1": Action.KEEP,
        "cache:user:1": Action.DROP,
    }
    assert {key: action(key, policy) for key in told} == told


def test_no_policy_drops_a_revocation() -> None:
    everything = CachePolicy(drop=("*",))
    assert action("acme:1", everything) is Action.DROP
    revocations = [one.pattern.replace("*", "1") for one in KEY_PATTERNS if one.purpose is Purpose.REVOCATION]
    assert {action(key, everything) for key in revocations} == {Action.KEEP}
    for pattern in ("blacklist:*", "blacklist:token:*", "blacklist:token:1"):
        with pytest.raises(SettingsError, match="valid again"):
            Rules(CachePolicy(drop=(pattern,)))


@pytest.mark.parametrize("pattern", ["*:cache", "a?b:*", "a[bc]*", "a*b"])
def test_a_pattern_that_is_more_than_a_beginning_is_refused(pattern: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Rules(CachePolicy(keep=(pattern,)))
    assert caught.value.code is Code.CACHE_PATTERN
    assert "acme:*" in caught.value.hint


def test_the_page_names_every_pattern() -> None:
    page = PAGE.read_text()
    assert [one.pattern for one in KEY_PATTERNS if f"`{one.pattern}`" not in page] == []
