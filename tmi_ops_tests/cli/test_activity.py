"""A command that waits says so on a terminal, and nowhere else."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tmi_ops.cli.activity import Activity, ends_activity
from tmi_ops.progress import waiting_for
from tmi_ops_tests.cli.test_options import ALL, options_of
from tmi_ops_tests.commands import first_shown

CLEAR = "\r\x1b[K"
# These read this machine alone, or start servers.
OF_THIS_MACHINE = ("up", "down", "demo", "stack", "settings", "keys", "recover code")
# What a required parameter may be, by its name.
GIVEN = {
    "file": "000000010000000000000001",
    "backup_id": "20261124T112253Z-base-849c",
    "key": "rpo",
    "name": "before-release",
    "--reason": "a test",
    "--into": "new",
    "--table": "threats",
}
# Without these words the command line would be refused before anything is read.
CHOSEN = {
    "restore": ("--latest",),
    "recover diff": ("--to-time", "1h ago"),
    "recover rows": ("--to-time", "1h ago", "--table", "threats"),
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()


def test_it_names_who_has_not_answered_longest_and_is_gone_before_anything_is_written(terminal: Terminal) -> None:
    activity = Activity(terminal, after_s=0)
    activity.show()
    with waiting_for("the store"), waiting_for("postgres@db:5432/tmi"):
        activity.show()
    activity.make_way("\x1b[?25l\r")
    assert terminal.getvalue() == f"{CLEAR}Working ... 0 s{CLEAR}Waiting for the store ... 0 s"
    activity.make_way("the screen")
    assert terminal.getvalue().endswith("0 s" + CLEAR)


def test_after_the_first_output_it_comes_between_whole_lines_and_only_for_an_answer(terminal: Terminal) -> None:
    activity = Activity(terminal, after_s=0)
    activity.make_way("a screen\n")
    activity.show()
    with waiting_for("the store"):
        activity.make_way("Continue? [y/N]: ")
        activity.show()
        assert terminal.getvalue() == ""
        activity.make_way("\x1b[0m\n")
        activity.show()
        assert terminal.getvalue() == f"{CLEAR}Waiting for the store ... 0 s"
    activity.show()
    assert terminal.getvalue() == f"{CLEAR}Waiting for the store ... 0 s{CLEAR}"


def test_what_is_answered_at_once_is_not_shown_and_nothing_is_once_it_has_ended(terminal: Terminal) -> None:
    activity = Activity(terminal, after_s=3600)
    with waiting_for("the store"):
        activity.show()
    ended = Activity(terminal, after_s=0)
    ended.end()
    ended.show()
    assert terminal.getvalue() == ""


def test_it_fits_a_narrow_terminal(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "12")
    Activity(terminal, after_s=0).show()
    assert terminal.getvalue() == f"{CLEAR}Working ..."


def test_a_pipe_a_log_and_a_dumb_terminal_see_nothing(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    piped = io.StringIO()
    Activity(piped, after_s=0).show()
    monkeypatch.setenv("TERM", "dumb")
    Activity(terminal, after_s=0).show()
    assert piped.getvalue() + terminal.getvalue() == ""


@pytest.mark.parametrize("path", ALL)
def test_every_json_and_quiet_ends_it(path: str, terminal: Terminal) -> None:
    for option in options_of(ALL[path]):
        if {"--json", "--quiet"} & set(option.opts):
            assert option.callback is ends_activity
    activity = Activity(terminal, after_s=0)
    ends_activity(click.Context(ALL[path], obj=activity), click.Option(["--json"]), True)
    activity.show()
    assert terminal.getvalue() == ""


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that takes every connection and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        yield listening.getsockname()[1]


def waiting_commands() -> Iterator[tuple[str, ...]]:
    """Every command that a server can keep waiting, with what it requires."""
    for path, command in ALL.items():
        if isinstance(command, click.Group) or path.startswith(OF_THIS_MACHINE):
            continue
        words = path.split()
        for parameter in command.params:
            if parameter.required and isinstance(parameter, click.Option):
                words += [parameter.opts[0], GIVEN[parameter.opts[0]]]
            elif parameter.required:
                words += [GIVEN[str(parameter.name)]]
        yield (*words, *CHOSEN.get(path, ()))


@pytest.mark.slow
def test_no_command_leaves_the_terminal_empty_until_it_fails(black_hole: int, tmp_path: Path) -> None:
    (tmp_path / GIVEN["file"]).touch()
    calls = list(waiting_commands())
    shown = first_shown(
        calls,
        env={
            "PATH": os.environ["PATH"],
            "TERM": "xterm",
            "POSTGRES_HOST": "127.0.0.1",
            "POSTGRES_PORT": str(black_hole),
            "POSTGRES_DB": "tmi",
            "POSTGRES_PASSWORD": "secret",
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(black_hole),
            "TMI_OPS_S3_ENDPOINT_URL": f"http://127.0.0.1:{black_hole}",
            "TMI_OPS_S3_BUCKET": "backups",
            "TMI_OPS_S3_ACCESS_KEY_ID": "id",
            "TMI_OPS_S3_SECRET_ACCESS_KEY": "secret",
            "TMI_OPS_ALERT_URLS": f"json://127.0.0.1:{black_hole}",
            "TMI_OPS_HOME": str(tmp_path / "home"),
        },
        cwd=tmp_path,
    )
    silent = [(words, text) for words, text in zip(calls, shown, strict=True) if not text or "ERROR" in text]
    assert silent == []
