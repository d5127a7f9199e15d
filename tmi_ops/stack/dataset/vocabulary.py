"""The words of `vocabulary.toml`: sentences by register, the phrases they are made of, and names of things."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files


def _words(text: str | list[str]) -> tuple[str, ...]:
    if isinstance(text, list):
        return tuple(text)
    return tuple(word.strip() for word in text.replace("\n", " ").split(","))


def _lines(text: str) -> tuple[str, ...]:
    return tuple(text.strip().splitlines())


_FILE = tomllib.loads(files("tmi_ops.stack.dataset").joinpath("vocabulary.toml").read_text("utf-8"))

SENTENCES: Mapping[str, tuple[str, ...]] = {register: _lines(text) for register, text in _FILE["sentences"].items()}
PHRASES: Mapping[str, tuple[str, ...]] = {name: _words(text) for name, text in _FILE["phrases"].items()}


def names(kind: str) -> tuple[str, ...]:
    """What things of a kind are called, for example `process_kinds`."""
    return _words(_FILE["names"][kind])


PARTS = names("parts")
PROCESS_KINDS = names("process_kinds")
SUBJECTS = names("subjects")
NOTE_KINDS = names("note_kinds")
ORGANISATIONS = names("organisations")
