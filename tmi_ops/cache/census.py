"""Counts keys: one walk over the keyspace with SCAN, in batches, with constant memory.

SCAN returns every key that exists during the entire walk, and may return one twice (source: Redis, command SCAN); so a
count on a cache in use is approximate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from redis import Redis

from tmi_ops.cache.rules import Rule, Rules
from tmi_ops.progress import Report

BATCH = 1000
# How many prefixes of unknown keys are counted separately; the rest is counted together.
UNKNOWN_KINDS = 50
OTHERS = "(others)"
_SHOWN_CHARACTERS = 60
_SHOWN_OF_A_WORD = 6
_FOR_EVER = -1
_GONE = -2
# The TTL was set earlier, by a clock that may be a little off.
_TOLERANCE_MS = 1000


@dataclass(frozen=True)
class KeyCount:
    """Keys of one pattern.

    Attributes:
        for_ever: keys without a TTL.
        too_long: keys with a longer TTL than the pattern allows.
        longest_ms: the longest TTL, in milliseconds; 0 if none has one.
        example: the name of a key without a TTL or with too long a TTL, unless names are secret.
    """

    rule: Rule
    keys: int = 0
    for_ever: int = 0
    too_long: int = 0
    longest_ms: int = 0
    example: str = ""


@dataclass(frozen=True)
class Census:
    """The keys of the cache.

    Attributes:
        counts: of every rule, in the order of declaration.
        unknown: prefixes of unknown keys, and how many keys have each.
    """

    counts: tuple[KeyCount, ...]
    unknown: tuple[tuple[str, int], ...]

    @property
    def keys(self) -> int:
        return sum(count.keys for count in self.counts) + self.unknown_keys

    @property
    def unknown_keys(self) -> int:
        return sum(number for _, number in self.unknown)


@dataclass
class _Tally:
    keys: int = 0
    for_ever: int = 0
    too_long: int = 0
    longest_ms: int = 0
    example: str = ""

    def add(self, key: bytes, rule: Rule, ttl_ms: int) -> None:
        if ttl_ms == _GONE:
            return
        self.keys += 1
        self.longest_ms = max(self.longest_ms, ttl_ms)
        if rule.declared is None:
            return
        limit_ms = rule.declared.longest_life.total_seconds() * 1000 + _TOLERANCE_MS
        self.for_ever += ttl_ms == _FOR_EVER
        self.too_long += ttl_ms > limit_ms
        is_wrong = ttl_ms == _FOR_EVER or ttl_ms > limit_ms
        if is_wrong and not self.example and not rule.declared.names_are_secret:
            self.example = shown(key)


def take_census(client: Redis, rules: Rules, report: Report) -> Census:
    """Count the keys of every pattern and read their TTLs. Changes nothing.

    Raises:
        redis.RedisError: the cache failed; `connection.connected` makes it a CacheError.
    """
    tallies: dict[Rule, _Tally] = {}
    unknown: Counter[str] = Counter()
    with report.phase("Counting keys", total=client.dbsize(), unit="keys") as phase:
        for keys in walk(client):
            for key, ttl_ms in zip(keys, _lives(client, keys), strict=True):
                rule = rules.rule_of(key)
                if rule is None:
                    kind = _kind(key)
                    unknown[kind if kind in unknown or len(unknown) < UNKNOWN_KINDS else OTHERS] += 1
                else:
                    tallies.setdefault(rule, _Tally()).add(key, rule, ttl_ms)
            phase.advance(len(keys))
    counts = tuple(_count(rule, tallies.get(rule, _Tally())) for rule in rules.as_declared)
    return Census(counts, tuple(unknown.most_common()))


def walk(client: Redis) -> Iterator[list[bytes]]:
    """The names of all keys, a batch at a time."""
    cursor = 0
    while True:
        cursor, names = client.scan(cursor, count=BATCH)
        if names:
            yield cast(list[bytes], names)
        if cursor == 0:
            return


def shown(key: bytes) -> str:
    """A key's name for a line of text: escaped where it is not text, and cut if it is long."""
    text = key.decode(errors="backslashreplace")
    text = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _lives(client: Redis, keys: list[bytes]) -> list[int]:
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.pttl(key)
        return list(pipeline.execute())


def _kind(key: bytes) -> str:
    """The prefix of an unknown key. A key without a colon may be a secret, so only its first characters are shown."""
    first, colon, _ = key.partition(b":")
    return f"{shown(first)}:*" if colon else f"{shown(key[:_SHOWN_OF_A_WORD])}*"


def _count(rule: Rule, tally: _Tally) -> KeyCount:
    return KeyCount(rule, tally.keys, tally.for_ever, tally.too_long, max(tally.longest_ms, 0), tally.example)
