from __future__ import annotations

from pathlib import Path

import pytest

from tmi_ops.postgres.configuration import parse_settings, plain_value, quoted_value, read_settings


@pytest.mark.parametrize("value", ["", "plain", "it's", "back\\slash", "two words", "a = 'b'"])
def test_a_value_that_was_quoted_is_read_as_it_was(value: str) -> None:
    assert plain_value(quoted_value(value)) == value
    assert plain_value(parse_settings(f"name = {quoted_value(value)}")["name"]) == value


def test_a_later_line_wins_and_included_files_count_where_they_are_included(tmp_path: Path) -> None:
    (tmp_path / "postgresql.conf").write_text(
        "Port = 1\ninclude 'more.conf'\ninclude_dir 'conf.d'\ninclude_if_exists 'absent.conf'\nssl off # why\n"
    )
    (tmp_path / "more.conf").write_text("port = 2\narchive_mode = on\ninclude 'postgresql.conf'\n")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "b.conf").write_text("port = 4\n")
    (tmp_path / "conf.d" / "a.conf").write_text("port = 3\n")
    (tmp_path / "conf.d" / "not").write_text("port = 5\n")
    assert read_settings(tmp_path / "postgresql.conf") == {"port": "4", "archive_mode": "on", "ssl": "off"}
    assert read_settings(tmp_path / "absent") == {}


def test_a_device_is_not_read_for_ever(tmp_path: Path) -> None:
    (tmp_path / "postgresql.conf").write_text("include '/dev/zero'\nport = 1\n")
    assert read_settings(tmp_path / "postgresql.conf") == {"port": "1"}
