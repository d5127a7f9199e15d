"""Where an environment was chosen with -e, or is one of several, every command that is printed chooses it, too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from tmi_ops.checks.finding import critical
from tmi_ops.cli import printed_commands
from tmi_ops.cli.checks_view import finding_facts
from tmi_ops.cli.terminal import SafeConsole
from tmi_ops_tests.commands import command

FLEET = """
[defaults]
POSTGRES_HOST = "127.0.0.1"
POSTGRES_PORT = 9
TMI_OPS_S3_ENDPOINT_URL = "http://127.0.0.1:9"
TMI_OPS_S3_BUCKET = "backups"
TMI_OPS_S3_ACCESS_KEY_ID_ENV = "S3"
TMI_OPS_S3_SECRET_ACCESS_KEY_ENV = "S3"
TMI_OPS_RPO = "1h"
TMI_OPS_RTO = "2h"

[environments.shop]
TMI_OPS_PROFILE = "none"

[environments.tmi]
"""
COMMAND = re.compile(r"(?<![\w./-])tmi-ops (?!-e )[a-z][a-z-]*")
WORDS: tuple[tuple[str, ...], ...] = (
    ("doctor",), ("doctor", "--json"), ("status",), ("status", "--json"), ("health",), ("settings",), ("alerts",),
    ("backups",), ("keys", "show"), ("wal", "status"), ("wal", "line"), ("shadow", "status"), ("drills",), ("drill",),
    ("check",), ("migrate", "--plan"), ("cache", "check"), ("recover", "list"), ("verify", "latest"), ("travel",),
    ("prune", "--dry-run"), ("keys", "rotate"), ("keys", "sign"), ("init", "--plan"), ("roles", "plan"),
    ("restore", "--latest"),
)  # fmt: skip


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "tmi-ops.toml").write_text(FLEET)
    return tmp_path


def printed(here: Path, *words: str, **variables: str) -> str:
    ended = command(*words, env={"PATH": "/usr/bin:/bin", "S3": "x", **variables}, cwd=here)
    return ended.stdout + ended.stderr


def test_nothing_listens_and_every_command_says_for_itself_how_to_go_on(here: Path) -> None:
    said = {words: printed(here, "-e", "tmi", *words) for words in WORDS}
    assert {words: COMMAND.findall(text) for words, text in said.items() if COMMAND.search(text)} == {}
    telling = {words[0] for words, text in said.items() if "tmi-ops -e tmi " in text}
    assert telling >= {"doctor", "status", "health", "settings", "alerts", "roles", "check", "migrate", "cache"}


def test_an_environment_of_several_is_named_even_where_a_variable_chose_it(here: Path) -> None:
    said = printed(here, "doctor", TMI_ENV="shop")
    assert "tmi-ops -e shop " in said
    assert not COMMAND.search(said)


def test_all_side_by_side_have_each_its_own_name(here: Path) -> None:
    said = " ".join(printed(here, "status", "--all").split())
    assert not COMMAND.search(said)
    assert "tmi-ops -e NAME status" in said


def test_the_only_environment_needs_no_name(tmp_path: Path) -> None:
    said = printed(tmp_path, "backups")
    assert COMMAND.search(said)
    assert "-e" not in said


@pytest.fixture
def carried() -> None:
    printed_commands.carry("shop")


@pytest.fixture(autouse=True)
def nothing_carried_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printed_commands, "_carried", None)


@pytest.mark.usefixtures("carried")
def test_styles_stay_where_they_were_and_tables_have_room_for_it() -> None:
    console = SafeConsole(width=80, color_system="truecolor", force_terminal=True, highlight=False)
    table = Table.grid()
    table.add_row("tmi-ops wal stream", Text("tmi-ops status", style="bold"))
    with console.capture() as capture:
        console.print("See [bold]tmi-ops backups[/] now", soft_wrap=True)
        console.say("a `tmi-ops drill`, " * 4)
        console.print(table)
    first, *said, last = capture.get().splitlines()
    assert first == "See \x1b[1mtmi-ops -e shop backups\x1b[0m now"
    assert max(map(len, said)) <= 80, "wrapped as it is shown"
    assert " ".join(said).count("`tmi-ops -e shop drill`") == 4
    assert last == "tmi-ops -e shop wal stream\x1b[1mtmi-ops -e shop status\x1b[0m"


@pytest.mark.usefixtures("carried")
def test_programs_are_given_commands_that_work() -> None:
    finding = critical("nothing archives", "", "tmi-ops wal stream  # as a service").findings[0]
    facts = printed_commands.facts_as_typed(finding_facts(finding))
    assert facts["advice"]["command"] == ["tmi-ops -e shop wal stream  # as a service"]
