"""The file that init writes settings into."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from dotenv import dotenv_values

from tmi_ops.errors import SettingsError
from tmi_ops.settings.env_file import quoted, with_values, write_values


def test_a_value_takes_the_place_of_the_old_one_and_everything_else_stays() -> None:
    text = "# ours\nPOSTGRES_HOST=old\nexport POSTGRES_PORT=5432\nOTHER=1\n"
    assert with_values(text, {"POSTGRES_HOST": "new", "POSTGRES_DB": "tmi"}) == (
        "# ours\nPOSTGRES_HOST=new\nexport POSTGRES_PORT=5432\nOTHER=1\nPOSTGRES_DB=tmi\n"
    )


@pytest.mark.parametrize("value", ["plain", "with space", "a'b", 'a"b', "a$b", "a#b", "back\\slash", "", "a=b", "é"])
def test_what_is_written_reads_back_as_it_was(tmp_path: Path, value: str) -> None:
    (tmp_path / "env").write_text(f"NAME={quoted(value)}\n")
    assert dotenv_values(tmp_path / "env")["NAME"] == value


def test_the_file_is_its_owners_alone_and_what_did_not_change_is_not_named(tmp_path: Path) -> None:
    file = tmp_path / ".env.production"
    file.write_text("POSTGRES_HOST=db\n")
    file.chmod(0o644)
    assert write_values(file, {"POSTGRES_HOST": "db", "POSTGRES_DB": "tmi"}) == ("POSTGRES_DB",)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() == "POSTGRES_HOST=db\nPOSTGRES_DB=tmi\n"


def test_what_such_a_file_would_put_a_variable_in_place_of_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="POSTGRES_PASSWORD contains"):
        write_values(tmp_path / "env", {"POSTGRES_PASSWORD": "a${HOME}b"})
    assert not (tmp_path / "env").exists()


def test_a_line_break_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="POSTGRES_PASSWORD contains a line break"):
        write_values(tmp_path / "env", {"POSTGRES_PASSWORD": "a\nTMI_OPS_STOP_HOOK=rm"})
    assert not (tmp_path / "env").exists()
