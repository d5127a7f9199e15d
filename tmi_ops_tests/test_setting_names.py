"""Variables that a person wrote for tmi_ops and nothing reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tmi_ops
from tmi_ops.settings.fleet import reference_of
from tmi_ops.settings.names import KNOWN, Unread, unread_names

_WRITTEN = re.compile(r"\b(?:TMI_OPS|POSTGRES|REDIS|TMI_REDIS)_[A-Z0-9_]*[A-Z0-9]\b(?!_)")
# In the sources and yet no variable: the connection class of the stack's own roles, and an example of a slip.
NO_VARIABLES = {"REDIS_VARIABLES", "TMI_OPS_RETIAN"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TMI_OPS_RETIAN", "TMI_OPS_RETAIN"),
        ("TMI_OPS_S3_BUKET", "TMI_OPS_S3_BUCKET"),
        ("TMI_OPS_KEEP_WEEKS", "TMI_OPS_KEEP_WEEKLY"),
        ("TMI_OPS_SOMETHING_ELSE", None),
        ("POSTGRES_PASWORD", "POSTGRES_PASSWORD"),
        ("REDIS_HOTS", "REDIS_HOST"),
        ("TMI_DATABASE_ULR", "TMI_DATABASE_URL"),
    ],
)
def test_a_misspelt_name_is_found_with_the_one_that_was_meant(name: str, meant: str | None) -> None:
    assert unread_names([name]) == (Unread(name, meant),)


@pytest.mark.parametrize(
    "name",
    [
        "TMI_OPS_RETAIN",
        "TMI_OPS_HEALTH_CONNECTIONS",
        "TMI_OPS_ROLE_NAME_APP",
        "TMI_OPS_RECEIVER_PASSWORD_FILE",
        "POSTGRES_INITDB_ARGS",
        "REDIS_SENTINELS",
        "TMI_SERVER_PORT",
        "PATH",
    ],
)
def test_what_is_read_or_belongs_to_another_program_is_no_slip(name: str) -> None:
    assert unread_names([name]) == ()


def test_the_words_name_the_variable_and_what_to_write() -> None:
    assert Unread("TMI_OPS_RETIAN", "TMI_OPS_RETAIN").describe() == (
        "TMI_OPS_RETIAN is not a setting and is ignored. Did you mean TMI_OPS_RETAIN?"
    )
    assert Unread("TMI_OPS_X", None).describe() == "TMI_OPS_X is not a setting and is ignored."


def test_every_variable_that_the_sources_and_the_documents_name_is_known() -> None:
    """Else the command warns of its own setting."""
    package = Path(tmi_ops.__file__).parent
    texts = [*package.rglob("*.py"), *(package.parent / "docs").glob("*.md"), package.parent / "README.md"]
    written = {name for path in texts for name in _WRITTEN.findall(path.read_text())}
    assert len(written & KNOWN) > 40
    assert [item.name for item in unread_names({reference_of(name)[0] for name in written - NO_VARIABLES})] == []
