"""Which keys go and which stay: what the profile declares of the application's keys, under a policy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from tmi_ops.errors import SettingsError
from tmi_ops.profile.cache_keys import KeyPattern, KeyPurpose
from tmi_ops.settings import CachePolicy

UNKNOWN = "not the application's, as far as is known"
SESSIONS_STAY = "who is signed in; the policy lets them stay so"
_GLOB = frozenset("*?[]\\")


class Action(StrEnum):
    DROP = "drop"
    KEEP = "keep"


@dataclass(frozen=True)
class Rule:
    """What becomes of the keys of a pattern. `declared` is None for a pattern that the policy adds."""

    pattern: str
    action: Action
    because: str
    declared: KeyPattern | None = None

    def matches(self, key: bytes) -> bool:
        head = self.pattern.encode()
        return key.startswith(head[:-1]) if self.pattern.endswith("*") else key == head


class Rules:
    """All rules under a policy; of those that match a key, the first one counts.

    1. Revocations stay, whatever the policy says. 2. What the policy keeps. 3. What the policy drops. 4. What is
    declared of the application's keys, the longer pattern first. A key that none matches is not ours: it stays.

    Raises:
        SettingsError: the policy names a pattern that is more than a beginning, or that would drop revocations.
    """

    def __init__(self, policy: CachePolicy) -> None:
        self.policy = policy
        declared = sorted(policy.patterns, key=lambda one: len(one.pattern), reverse=True)
        of_revocations = (one for one in declared if one.purpose is KeyPurpose.REVOCATION)
        others = (one for one in declared if one.purpose is not KeyPurpose.REVOCATION)
        self.ordered: tuple[Rule, ...] = (
            *(self._declared(one) for one in of_revocations),
            *(_told(pattern, Action.KEEP, policy) for pattern in policy.keep),
            *(_told(pattern, Action.DROP, policy) for pattern in policy.drop),
            *(self._declared(one) for one in others),
        )
        self._by_first_part = _by_first_part(self.ordered)

    @property
    def as_declared(self) -> tuple[Rule, ...]:
        """The rules in the order a person reads them: keys as they are declared, then what the policy adds."""
        place: dict[KeyPattern | None, int] = {pattern: number for number, pattern in enumerate(self.policy.patterns)}
        return tuple(sorted(self.ordered, key=lambda rule: place.get(rule.declared, len(place))))

    def rule_of(self, key: bytes) -> Rule | None:
        """The rule that counts for a key; None where it is not known."""
        candidates = self._by_first_part.get(key.partition(b":")[0], self._by_first_part[b""])
        return next((rule for rule in candidates if rule.matches(key)), None)

    def _declared(self, one: KeyPattern) -> Rule:
        action = self._action(one.purpose)
        stays = one.purpose is KeyPurpose.SESSION and action is Action.KEEP
        return Rule(one.pattern, action, SESSIONS_STAY if stays else one.purpose.because, one)

    def _action(self, purpose: KeyPurpose) -> Action:
        drops_sessions = self.policy.sessions == "drop-sessions"
        if purpose in (KeyPurpose.COPY, KeyPurpose.JOB) or (purpose is KeyPurpose.SESSION and drops_sessions):
            return Action.DROP
        return Action.KEEP


def _told(pattern: str, action: Action, policy: CachePolicy) -> Rule:
    variable = f"TMI_OPS_CACHE_{action.upper()}"
    if _GLOB & set(pattern.removesuffix("*")) or not pattern:
        raise SettingsError(
            f"{variable} names a pattern that is more than a beginning: {pattern!r}.",
            hint="write the beginning and a star, as in acme:*, or a whole key",
        )
    if action is Action.DROP and _reaches(pattern, policy.revocations):
        raise SettingsError(
            f"{variable} names {pattern}: dropping it would make revoked tokens valid again.",
            hint=f"take {pattern} out of {variable}",
        )
    return Rule(pattern, action, f"told so by {variable}")


def _reaches(pattern: str, revocations: Iterable[str]) -> bool:
    """Whether a pattern lies within the keys of what was revoked."""
    return any(pattern.removesuffix("*").startswith(revoked.removesuffix("*")) for revoked in revocations)


def _by_first_part(ordered: Iterable[Rule]) -> dict[bytes, tuple[Rule, ...]]:
    """For the part of a key before its first colon the rules that may match it, in order; for b"" those of any key.

    A million keys are looked at in a few seconds then, and not each beside every rule.
    """
    rules = tuple(ordered)
    open_ended = {rule for rule in rules if ":" not in rule.pattern}
    parts = {rule.pattern.partition(":")[0].encode() for rule in rules if rule not in open_ended}
    found = {part: tuple(r for r in rules if r in open_ended or _first_part(r) == part) for part in parts}
    return {**found, b"": tuple(rule for rule in rules if rule in open_ended)}


def _first_part(rule: Rule) -> bytes:
    return rule.pattern.partition(":")[0].encode()
