"""Which keys to drop and to keep: from the key patterns that the profile declares, under a policy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from tmi_ops.error_codes import Code
from tmi_ops.errors import SettingsError
from tmi_ops.profile.cache_keys import KeyPattern, KeyPurpose
from tmi_ops.settings import CachePolicy

UNKNOWN = "of no known pattern"
SESSIONS_STAY = "sessions; the policy keeps them"
_GLOB = frozenset("*?[]\\")


class Action(StrEnum):
    DROP = "drop"
    KEEP = "keep"


@dataclass(frozen=True)
class Rule:
    """What to do with the keys of a pattern. `declared`: None for a pattern that the policy adds."""

    pattern: str
    action: Action
    because: str
    declared: KeyPattern | None = None

    def matches(self, key: bytes) -> bool:
        head = self.pattern.encode()
        return key.startswith(head[:-1]) if self.pattern.endswith("*") else key == head


class Rules:
    """All rules under a policy; the first one that matches a key applies.

    1. Revocations are kept, whatever the policy says. 2. Patterns that the policy keeps. 3. Patterns that the policy
    drops. 4. The declared patterns, the longest first. A key that matches none is kept.

    Raises:
        SettingsError: the policy names a pattern that is more than a prefix, or that would drop revocations.
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
        """The rules in the order to show them: declared patterns in their order, then those the policy adds."""
        place: dict[KeyPattern | None, int] = {pattern: number for number, pattern in enumerate(self.policy.patterns)}
        return tuple(sorted(self.ordered, key=lambda rule: place.get(rule.declared, len(place))))

    def rule_of(self, key: bytes) -> Rule | None:
        """The rule that applies to a key; None if the key is unknown."""
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
            f"{variable} holds a pattern that is not a prefix: {pattern!r}.",
            hint="write a prefix and a star, such as acme:*, or a full key",
            code=Code.CACHE_PATTERN,
        )
    if action is Action.DROP and _reaches(pattern, policy.revocations):
        raise SettingsError(
            f"{variable} includes {pattern}: dropping it would make revoked tokens valid again.",
            hint=f"remove {pattern} from {variable}",
            code=Code.CACHE_PATTERN,
        )
    return Rule(pattern, action, f"set by {variable}")


def _reaches(pattern: str, revocations: Iterable[str]) -> bool:
    """Whether a pattern matches only keys of revocations."""
    return any(pattern.removesuffix("*").startswith(revoked.removesuffix("*")) for revoked in revocations)


def _by_first_part(ordered: Iterable[Rule]) -> dict[bytes, tuple[Rule, ...]]:
    """The rules that may match, in order, by the part of a key before its first colon; b"": those for any key.

    So a million keys take a few seconds, as no key is compared with every rule.
    """
    rules = tuple(ordered)
    open_ended = {rule for rule in rules if ":" not in rule.pattern}
    parts = {rule.pattern.partition(":")[0].encode() for rule in rules if rule not in open_ended}
    found = {part: tuple(r for r in rules if r in open_ended or _first_part(r) == part) for part in parts}
    return {**found, b"": tuple(rule for rule in rules if rule in open_ended)}


def _first_part(rule: Rule) -> bytes:
    return rule.pattern.partition(":")[0].encode()
