"""The comparison of a verification finds and names each single change of a database."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tmi_ops.backup.archive.contents import Contents
from tmi_ops.backup.contents import fingerprints_of
from tmi_ops.backup.counting import count_database
from tmi_ops.backup.definitions import Definition, definitions_of
from tmi_ops.backup.fingerprint import differing_tables as differing_fingerprints
from tmi_ops.backup.snapshot import pin_text_output
from tmi_ops.backup.undumped import Fact, read_facts
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.recovery.contents import differing_large_objects, differing_sequences
from tmi_ops.recovery.definitions import compare_definitions, compare_facts
from tmi_ops.recovery.trees import Majors
from tmi_ops.settings import PostgresSettings

pytestmark = pytest.mark.slow

CASES = Path(__file__).parent / "cases"


def _changes() -> Iterator[object]:
    for line in (CASES / "changes.tsv").read_text().splitlines():
        if not line.startswith("#"):
            name, statements, said = line.split("\t")
            yield pytest.param(statements.split("; "), said, id=name)


@pytest.fixture(scope="module")
def unchanged(server: PostgresSettings) -> Iterator[PostgresSettings]:
    name = f"unchanged_{secrets.token_hex(4)}"
    address = server.model_copy(update={"database": name})
    with connect(server) as connection:
        connection.execute("DROP ROLE IF EXISTS changes_role")
        connection.execute("CREATE ROLE changes_role")
        connection.execute(f"CREATE DATABASE {name}".encode())
    with connect(address) as connection:
        connection.execute((CASES / "changes_base.sql").read_bytes())
    yield address
    with connect(server) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
        connection.execute("DROP ROLE changes_role")


@pytest.fixture
def changed(server: PostgresSettings, unchanged: PostgresSettings) -> Iterator[PostgresSettings]:
    name = f"changed_{secrets.token_hex(4)}"
    with connect(server) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {unchanged.database}".encode())
        yield server.model_copy(update={"database": name})
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@dataclass(frozen=True)
class Described:
    """Everything that a verification compares."""

    definitions: tuple[Definition, ...]
    facts: tuple[Fact, ...]
    contents: Contents


def _described(address: PostgresSettings, programs: Programs) -> Described:
    toc, contents = count_database(address, programs)
    with connect(address) as connection:
        pin_text_output(connection)
        return Described(definitions_of(toc), read_facts(connection), contents)


def _differences(before: Described, after: Described, programs: Programs) -> list[str]:
    majors = Majors(programs.major, programs.major)
    found = compare_definitions(before.definitions, after.definitions, majors)
    found += compare_facts(before.facts, after.facts)
    rows = differing_fingerprints(fingerprints_of(before.contents), fingerprints_of(after.contents))
    sequences = differing_sequences(before.contents.sequences, after.contents.sequences)
    return [*found.differences, *rows, *sequences, *differing_large_objects(before.contents, after.contents)]


@pytest.fixture(scope="module")
def before(unchanged: PostgresSettings, programs: Programs) -> Described:
    return _described(unchanged, programs)


def test_an_unchanged_copy_differs_in_nothing(before: Described, changed: PostgresSettings, programs: Programs) -> None:
    assert _differences(before, _described(changed, programs), programs) == []


@pytest.mark.parametrize(("statements", "said"), list(_changes()))
def test_a_single_change_is_seen_and_named(
    before: Described, changed: PostgresSettings, programs: Programs, statements: list[str], said: str
) -> None:
    with connect(changed) as connection:
        for statement in statements:
            connection.execute(statement.encode())
    assert said in "; ".join(_differences(before, _described(changed, programs), programs))
