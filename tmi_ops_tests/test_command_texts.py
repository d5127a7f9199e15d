"""A command that is printed works as printed: it says which environment it is about, where nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tmi_ops.command_texts import all_with_environment, with_environment
from tmi_ops.settings import name_for_others


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tmi-ops status", "tmi-ops -e shop status"),
        ("`tmi-ops wal gaps`, tmi-ops drill.", "`tmi-ops -e shop wal gaps`, tmi-ops -e shop drill."),
        ("see [bold]tmi-ops keys init[/]", "see [bold]tmi-ops -e shop keys init[/]"),
        ("archive_command = 'tmi-ops wal push %p'", "archive_command = 'tmi-ops -e shop wal push %p'"),
        ("tmi-ops -e NAME status", "tmi-ops -e NAME status"),
        ("/opt/bin/tmi-ops status, my-tmi-ops status, .venv/bin/tmi-ops up", "/opt/bin/tmi-ops status, my-tmi-ops "
         "status, .venv/bin/tmi-ops up"),
        ("the role tmi-ops, tmi-ops.toml and tmi_ops itself", "the role tmi-ops, tmi-ops.toml and tmi_ops itself"),
    ],
)  # fmt: skip
def test_each_command_in_a_text_says_it_and_nothing_else_is_changed(text: str, said: str) -> None:
    changed = with_environment(text, "shop")
    assert changed == said
    assert with_environment(changed, "shop") == changed
    assert with_environment(text, None) == text


def test_texts_in_facts_are_reached_however_deep_they_lie() -> None:
    facts = {"tmi-ops status": [{"advice": ("tmi-ops doctor", 3, None)}]}
    assert all_with_environment(facts, "a/b") == {"tmi-ops status": [{"advice": ["tmi-ops -e a/b doctor", 3, None]}]}


@pytest.mark.parametrize(
    ("file", "name", "carried"),
    [
        ("", "development", None),
        ("", "production", "production"),
        ("[environments.shop]\n", "shop", None),
        ("[environments.shop]\n[environments.development]\n", "development", "development"),
        ("[environments.shop.databases.billing]\n", "shop/billing", "shop/billing"),
    ],
)
def test_what_others_read_names_it_unless_a_bare_command_means_it(
    tmp_path: Path, file: str, name: str, carried: str | None
) -> None:
    if file:
        (tmp_path / "tmi-ops.toml").write_text(file)
    assert name_for_others(name, {"TMI_ENV": "of this process alone"}, tmp_path) == carried
