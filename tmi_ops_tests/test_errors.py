"""What an error says, and the page that explains its code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tmi_ops.error_codes import Code
from tmi_ops.errors import BackupError, OpsError, as_sentence, first_line

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("said", "line"),
    [("relation gone\nLINE 1: SELECT", "relation gone"), ("\n  \n out of room \n", "out of room"), ("", "ValueError")],
)
def test_an_error_s_first_line_is_the_first_that_says_something_or_its_kind(said: str, line: str) -> None:
    assert first_line(ValueError(said)) == line


@pytest.mark.parametrize(
    ("hint", "shown"),
    [
        ("give another directory", "Give another directory."),
        ("Give another directory.", "Give another directory."),
        ("tmi-ops up", "Run: tmi-ops up"),
        ("make one: tmi-ops keys init", "Make one: tmi-ops keys init"),
        ("run `tmi-ops migrate`, then try again", "Run `tmi-ops migrate`, then try again."),
        ("make one: `tmi-ops keys init`", "Make one: `tmi-ops keys init`"),
    ],
)
def test_a_hint_is_a_sentence_and_a_command_at_its_end_can_be_copied(hint: str, shown: str) -> None:
    assert as_sentence(hint) == shown


def test_an_error_has_the_code_of_its_class_or_a_narrower_one() -> None:
    assert BackupError("No backup.").code is Code.BACKUP
    assert BackupError("No backup.", code=Code.SLOT_LOST).code is Code.SLOT_LOST
    assert str(Code.BACKUP) == "TMI-2000"


def test_no_number_stands_for_two_kinds() -> None:
    numbers = [code.number for code in Code.__members__.values()]
    assert len(set(numbers)) == len(numbers) == len(Code)


def test_every_code_is_given_somewhere() -> None:
    """A code that nothing gives explains nothing."""
    code = "\n".join(path.read_text() for path in (ROOT / "tmi_ops").rglob("*.py"))
    assert [one.name for one in Code if not re.search(rf"Code\.{one.name}\b", code)] == []


def test_the_page_lists_every_code_as_it_is() -> None:
    rows = re.findall(r"^\| (TMI-\d+) \| (.+?) \| (.+?) \|$", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    assert rows == [(str(code), code.meaning, code.remedy) for code in sorted(Code, key=lambda one: one.number)]


def test_an_error_that_is_printed_plain_says_all_three() -> None:
    error = OpsError("The slot is gone.", detail="Backups are untouched.", hint="take a base backup")
    assert str(error) == "The slot is gone. Backups are untouched. HINT: Take a base backup."
