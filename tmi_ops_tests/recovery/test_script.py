"""A plain dump is data: psql refuses its own commands in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tmi_ops.errors import ProgramError
from tmi_ops.postgres.programs import Programs
from tmi_ops.recovery.load import can_restrict, restricted, run_script
from tmi_ops.recovery.loader import loader_into
from tmi_ops.settings import PostgresSettings

HEAD = b"--\n-- PostgreSQL database dump\n--\n\n"


def _restricted(script: bytes, size: int) -> bytes:
    chunks = [script[start : start + size] for start in range(0, len(script), size)]
    return b"".join(restricted(chunks, "ours"))


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_the_restriction_of_the_dump_itself_gives_way_to_ours(size: int) -> None:
    script = HEAD + b"\\restrict Key1\n\nSELECT 1;\n" + b"x" * 40_000 + b"\n\\unrestrict Key1\n\n"
    expected = b"\\restrict ours\n\nSELECT 1;\n" + b"x" * 40_000 + b"\n\n"
    assert _restricted(script, size) == expected


@pytest.mark.parametrize("size", [3, 1 << 20])
def test_all_else_is_left_as_it_is(size: int) -> None:
    script = HEAD + b"SELECT 1;\n\\restrict Key1\n\\! id\n\\unrestrict Key1\n"
    assert _restricted(script, size) == b"\\restrict ours\n" + script


@pytest.mark.parametrize(
    ("version", "can"),
    [("17.6", True), ("17.5", False), ("18.0", True), ("15.14", True), ("15.13", False), ("12.22", False)],
)
def test_a_psql_that_cannot_be_restricted_is_known(version: str, can: bool) -> None:
    assert can_restrict(Programs(Path("/bin"), int(version.split(".")[0]), version)) is can


@pytest.mark.slow
@pytest.mark.parametrize("own", [b"", b"\\restrict Key1\n"], ids=["plain", "restricted by itself"])
@pytest.mark.parametrize(
    "attack",
    [
        b"\\! touch {}\n",
        b"\\o |touch {}\nSELECT 1;\n",
        b"SELECT 1 \\g |touch {}\n",
        b"\\copy (SELECT 1) TO PROGRAM 'touch {}'\n",
        b"\\unrestrict Key1\n\\! touch {}\n",
        b"CREATE TABLE t (a text);\nCOPY t FROM stdin;\nrow\n\\.\n\\! touch {}\n",
        b"\\set x `touch {}`\n",
    ],
)
def test_a_command_for_psql_in_a_dump_does_not_run(
    database: PostgresSettings, programs: Programs, tmp_path: Path, attack: bytes, own: bytes
) -> None:
    result, script = tmp_path / "ran", tmp_path / "dump.sql"
    script.write_bytes(HEAD + own + attack.replace(b"{}", str(result).encode()))
    with pytest.raises(ProgramError):
        run_script(script, programs, loader_into(database, programs, script))
    assert not result.exists()


@pytest.mark.slow
def test_data_that_begin_with_a_backslash_are_data(
    database: PostgresSettings, programs: Programs, tmp_path: Path
) -> None:
    script = tmp_path / "dump.sql"
    script.write_bytes(HEAD + b"CREATE TABLE public.t (a text);\nCOPY public.t FROM stdin;\n\\\\! id\n\\N\n\\.\n")
    run_script(script, programs, loader_into(database, programs, script))
