"""A machine that lacks what a backup needs says so, and does not blame the backup."""

from __future__ import annotations

import pytest

from tmi_ops.error_codes import Code
from tmi_ops.errors import ProgramError
from tmi_ops.recovery.requirements import NotHereError, Requirements, not_here, require_extensions


def test_missing_extensions_are_named_with_what_helps() -> None:
    with pytest.raises(NotHereError, match="pg_foo, postgis") as caught:
        require_extensions(Requirements(frozenset({"postgis", "pg_foo"})))
    assert caught.value.code is Code.NOT_HERE
    require_extensions(Requirements(tablespaces=frozenset({"fast"})))


@pytest.mark.parametrize(
    ("said", "lacks"),
    [
        ('ERROR:  extension "x" is not available', True),
        ("ERROR:  ICU is not supported in this build", True),
        ('ERROR:  could not access file "$libdir/x": No such file or directory', True),
        ("ERROR:  out of shared memory", True),
        ('ERROR:  relation "t" does not exist', False),
        ("pg_restore: error: input file is too short", False),
    ],
)
def test_a_failure_of_the_server_at_hand_is_told_from_one_of_the_backup(said: str, lacks: bool) -> None:
    assert (not_here(ProgramError(said)) is not None) is lacks
