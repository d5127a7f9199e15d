"""Compares the definitions of a copy with the source's, by the entries of pg_dump's tables of contents.

1. Objects are paired by kind, schema and name; an object on only one side is missing or new.
2. Texts that differ are parsed; they are equal if their trees are equal (recovery/trees.py).
3. Facts that a dump does not contain (backup/undumped.py) are compared separately. Those that depend on the server,
   such as versions, become notes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tmi_ops.backup.definitions import ATTACHED, Definition
from tmi_ops.backup.undumped import OF_THE_SERVER, Fact
from tmi_ops.recovery.trees import Majors, normal_form

_ANY_ORDER = frozenset({"ACL", "DEFAULT ACL"})
_SHOWN = 160  # characters of a line that differs
_Form = tuple[object, ...]


@dataclass(frozen=True)
class DefinitionDifferences:
    """One sentence each. `differences` fail the copy; `notes` concern the server it runs on."""

    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __add__(self, other: DefinitionDifferences) -> DefinitionDifferences:
        return DefinitionDifferences(self.differences + other.differences, self.notes + other.notes)


def compare_definitions(
    source: Iterable[Definition], copy: Iterable[Definition], majors: Majors
) -> DefinitionDifferences:
    """The differences between the definitions of copy and source."""
    before, after = _by_key(source), _by_key(copy)
    differences: list[str] = []
    notes: list[str] = []
    for key in sorted(before.keys() | after.keys()):
        differences += _differing(before[key], after[key], majors)
        notes += _elsewhere(before[key], after[key])
    return DefinitionDifferences(tuple(differences), tuple(notes))


def compare_facts(source: Iterable[Fact], copy: Iterable[Fact]) -> DefinitionDifferences:
    """The differences between facts that a dump does not contain."""
    before = {(fact.kind, fact.name): fact.value for fact in source}
    after = {(fact.kind, fact.name): fact.value for fact in copy}
    differences: list[str] = []
    notes: list[str] = []
    for kind, name in sorted(before.keys() & after.keys()):  # missing objects are reported by their definition
        was, came = before[kind, name], after[kind, name]
        if was != came:
            sentence = f"{'.'.join(name)}: {kind} was {was}, in the restored copy it is {came}"
            (notes if kind in OF_THE_SERVER else differences).append(sentence)
    for kind, name in sorted(before.keys() ^ after.keys()):
        if kind == "large object":
            where = "is missing from the restored copy" if (kind, name) in before else "was not in the source"
            differences.append(f"large object {name[0]} {where}")
    return DefinitionDifferences(tuple(differences), tuple(notes))


def _by_key(definitions: Iterable[Definition]) -> defaultdict[tuple[str, str, str], list[Definition]]:
    found: defaultdict[tuple[str, str, str], list[Definition]] = defaultdict(list)
    for definition in definitions:
        found[definition.key].append(definition)
    return found


def _differing(source: list[Definition], copy: list[Definition], majors: Majors) -> Iterator[str]:
    """Compare the definitions of one key; usually one on each side."""
    if source == copy:
        return
    before, after = ([(_form(item, majors), item) for item in side] for side in (source, copy))
    left = Counter(form for form, _ in before) - Counter(form for form, _ in after)
    added = Counter(form for form, _ in after) - Counter(form for form, _ in before)
    lost, new = _taken(before, left), _taken(after, added)
    for was, came in zip(lost, new, strict=False):
        yield f"{_called(was)} {_how(was, came)}"
    for item in lost[len(new) :]:
        yield f"{_called(item)} is missing from the restored copy"
    for item in new[len(lost) :]:
        yield f"{_called(item)} is in the restored copy but was not in the source"


def _taken(items: list[tuple[_Form, Definition]], counts: Counter[_Form]) -> list[Definition]:
    """The given number of items of each form."""
    taken = []
    for form, item in items:
        if counts[form] > 0:
            counts[form] -= 1
            taken.append(item)
    return taken


def _elsewhere(source: list[Definition], copy: list[Definition]) -> Iterator[str]:
    """A differing tablespace, which is a note: it depends on the server."""
    if len(source) == len(copy) == 1 and source[0].tablespace != copy[0].tablespace:
        here = copy[0].tablespace or "the database's default"
        was = source[0].tablespace or "the database's default"
        yield f"{_called(source[0])} was in the tablespace {was}, here it is in {here}"


def _form(item: Definition, majors: Majors) -> _Form:
    statements = normal_form(item.text, majors, any_order=item.kind in _ANY_ORDER)
    return (item.owner, item.access_method, *statements)


def _called(item: Definition) -> str:
    kind, name = item.kind.lower(), item.name
    if item.kind in ATTACHED:  # the name begins with the kind of object it refers to
        about, _, name = item.name.partition(" ")
        kind = f"{'grants' if item.kind == 'ACL' else kind} on {about.lower()}"
    return f"{kind} {item.schema}.{name}" if item.schema else f"{kind} {name}"


def _how(was: Definition, came: Definition) -> str:
    for fact in ("owner", "access_method"):
        if getattr(was, fact) != getattr(came, fact):
            words = fact.replace("_", " ")
            return (
                f"had the {words} {getattr(was, fact) or 'by default'}, "
                f"in the restored copy {getattr(came, fact) or 'that by default'}"
            )
    before, after = ([line.strip().rstrip(",") for line in item.text.splitlines()] for item in (was, came))
    lost = [line for line in before if line not in after]
    new = [line for line in after if line not in before]
    return (
        f"was {_line(lost or was.text.splitlines())}, in the restored copy it is {_line(new or came.text.splitlines())}"
    )


def _line(lines: list[str]) -> str:
    line = " ".join(" ".join(lines).split()).rstrip(",;")
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
