"""Texts that read, and compress, like what people write: sentences from a grammar, pooled, joined into documents."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from tmi_ops.stack.dataset.chance import Chance
from tmi_ops.stack.dataset.vocabulary import PHRASES, SENTENCES

# Making a sentence costs some 30 µs, picking one 0.1 µs. The pools are wide enough that a sentence comes back only
# after more text than a compressor's window holds.
SENTENCES_A_POOL = {"threat": 24_000, "mitigation": 16_000, "system": 16_000, "review": 8_000}
SENTENCES_A_SMALL_POOL = 4_000
REGISTERS_WITH_REFERENCES = frozenset({"system", "threat", "mitigation", "review"})
COMPONENT = "§"

_PARTS = re.compile(r"(\{\w+\}|\[[^\]]*\])")


@dataclass(frozen=True)
class Slot:
    """A place in a template for a phrase; one whose name has a capital starts a sentence."""

    phrase: str
    capital: bool


@dataclass(frozen=True)
class Either:
    """A place in a template for one of several."""

    options: tuple[Template, ...]


Template: TypeAlias = tuple[str | Slot | Either, ...]


class Prose:
    """Pools of sentences of one seed."""

    def __init__(self, seed: int) -> None:
        self._chance = Chance(f"prose {seed}")
        self._phrases = {name: tuple(map(_parse, options)) for name, options in PHRASES.items()}
        self._pools = {register: self._pool(register, templates) for register, templates in SENTENCES.items()}

    def sentences(self, chance: Chance, register: str, count: int, component: str = "the service") -> str:
        """`count` sentences of a register (`system`, `threat`, `mitigation`, ...) about `component`."""
        pool = self._pools[register]
        return " ".join([chance.pick(pool) for _ in range(count)]).replace(COMPONENT, component)

    def markdown(self, chance: Chance, title: str, component: str, sections: int) -> str:
        """A document with headings, paragraphs and lists."""
        parts = [f"# {title}", self.sentences(chance, "system", chance.span(2, 5), component)]
        for number in range(1, sections + 1):
            heading = self.sentences(chance, "question", 1, component)
            parts.append(f"## {number}. {heading[:-1]}")
            register = chance.pick(("system", "review", "threat"))
            parts.append(self.sentences(chance, register, chance.span(2, 6), component))
            items = [f"- {self.sentences(chance, 'mitigation', 1, component)}" for _ in range(chance.span(0, 5))]
            if items:
                parts.append("\n".join(items))
        return "\n\n".join(parts)

    def _pool(self, register: str, texts: tuple[str, ...]) -> tuple[str, ...]:
        if register in REGISTERS_WITH_REFERENCES:
            texts = tuple(f"{text[:-1]}{{tail}}{text[-1]}" for text in texts)
        templates = tuple(map(_parse, texts))
        return tuple(self._sentence(templates) for _ in range(SENTENCES_A_POOL.get(register, SENTENCES_A_SMALL_POOL)))

    def _sentence(self, templates: tuple[Template, ...]) -> str:
        text = self._expand(self._chance.pick(templates))
        return text[0].upper() + text[1:]

    def _expand(self, template: Template) -> str:
        return "".join([part if isinstance(part, str) else self._fill(part) for part in template])

    def _fill(self, part: Slot | Either) -> str:
        if isinstance(part, Either):
            return self._expand(self._chance.pick(part.options))
        if part.phrase == "n":
            return str(self._chance.span(2, 96))
        if part.phrase == "hex":
            return self._chance.hexadecimal(7)
        phrase = self._expand(self._chance.pick(self._phrases[part.phrase]))
        return phrase[:1].upper() + phrase[1:] if part.capital else phrase


@lru_cache(maxsize=2)
def prose_of(seed: int) -> Prose:
    """The pools of a seed, made once a process."""
    return Prose(seed)


def _parse(text: str) -> Template:
    return tuple(_part(text) for text in _PARTS.split(text) if text)


def _part(text: str) -> str | Slot | Either:
    if text[0] == "[":
        return Either(tuple(map(_parse, text[1:-1].split("|"))))
    if text[0] == "{":
        return Slot(text[1:-1].lower(), capital=text[1].isupper())
    return text
