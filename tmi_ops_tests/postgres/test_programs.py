from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tmi_ops.error_codes import Code
from tmi_ops.errors import ProgramError
from tmi_ops.postgres.programs import program_failed, programs_at_least, run_program, said_of_failure, server_programs


def _installation(bindir: Path, version: str, *, server: bool = True) -> Path:
    bindir.mkdir()
    for name in ["pg_dump", *(["initdb", "postgres"] if server else [])]:
        program = bindir / name
        program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return bindir


def test_the_configured_directory_is_used_and_nothing_else(tmp_path: Path) -> None:
    bindir = _installation(tmp_path / "bin", "16.4 (Debian 16.4-1)")
    programs = programs_at_least(15, bindir)
    assert (programs.bindir, programs.major, programs.version) == (bindir, 16, "16.4")


def test_older_programs_are_refused_with_what_is_here_and_what_is_needed(tmp_path: Path) -> None:
    bindir = _installation(tmp_path / "bin", "14.1")
    with pytest.raises(ProgramError, match=r"of version 17 or newer are needed.*14\.1") as caught:
        programs_at_least(17, bindir)
    assert "postgresql-17" in caught.value.hint
    assert caught.value.code is Code.PROGRAM_VERSION


def test_a_scratch_cluster_needs_the_same_major_and_a_server(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="version 15 with initdb"):
        server_programs(15, _installation(tmp_path / "newer", "16.4"))
    with pytest.raises(ProgramError, match="version 16 with initdb"):
        server_programs(16, _installation(tmp_path / "client", "16.4", server=False))


def test_a_directory_without_programs_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=str(tmp_path)) as caught:
        programs_at_least(15, tmp_path)
    assert caught.value.code is Code.PROGRAM_MISSING


def test_the_wheels_programs_are_found_without_any_setting() -> None:
    assert server_programs(17).path("pg_restore").is_file()


def test_a_failing_program_says_its_last_words() -> None:
    with pytest.raises(ProgramError, match="failed with exit code 3: last words"):
        run_program(["/bin/sh", "-c", "echo last words >&2; exit 3"])
    with pytest.raises(ProgramError, match="ended by signal 9"):
        run_program(["/bin/sh", "-c", "kill -9 $$"])
    with pytest.raises(ProgramError, match="could not be started"):
        run_program(["/nowhere/pg_dump"])


def test_the_line_that_says_what_failed_is_shown_rather_than_the_last_ones() -> None:
    said = (
        "pg_restore: while PROCESSING TOC:\n"
        "pg_restore: from TOC entry 3; 0 0 TABLE t owner\n"
        'pg_restore: error: could not execute query: ERROR:  type "x" does not exist\n'
        "LINE 2:     id x\n"
        "HINT:  create it\n"
        "Command was: CREATE TABLE t (\n    id x,\n    a int,\n    b int\n);\n"
    )
    error = program_failed("/bin/pg_restore", 1, said)
    assert error.message == (
        'pg_restore failed with exit code 1: pg_restore: error: could not execute query: ERROR:  type "x" does not '
        "exist / HINT:  create it"
    )
    assert "Command was" in error.output
    assert said_of_failure("one\ntwo\n") == "one / two"


def test_a_server_without_room_for_locks_is_told_which_setting_to_raise() -> None:
    error = program_failed("psql", 3, "psql:<stdin>:9: ERROR:  out of shared memory\nHINT:  You might need to ...\n")
    assert "max_locks_per_transaction" in error.hint
    assert program_failed("psql", 3, "psql: ERROR:  syntax error\n").hint == ""
