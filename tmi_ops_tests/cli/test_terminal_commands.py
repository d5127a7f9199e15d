"""The attack: text of the database or the store that commands the terminal of who reads it."""

from __future__ import annotations

import io
import sys

import click
import pytest
from rich.table import Table

from tmi_ops.cli.main import _show_error
from tmi_ops.cli.streams import escaped, protected_streams
from tmi_ops.cli.terminal import SafeConsole
from tmi_ops.errors import OpsError
from tmi_ops.orchestration.results import bullets, sql_block
from tmi_ops.recovery.pages.templates import page_template
from tmi_ops.text import escaped_markdown, printable

# Clears the screen, retitles the window, hides text, answers for the person, and writes right to left.
EVIL = "a\x1b[2J\x1b]0;owned\x07\x1b[8mhidden\r\x9b31m\u202eb"


def test_what_is_printable_stays_and_what_commands_is_spelt_out() -> None:
    assert printable("Größe\t5 kB\nπ 数") == "Größe\t5 kB\nπ 数"
    assert printable(EVIL) == r"a\x1b[2J\x1b]0;owned\x07\x1b[8mhidden\x0d\x9b31m\u202eb"
    assert printable("\udcff\U000e0041") == r"\udcff\U000e0041"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_console_draws_its_own_colours_and_no_command_of_the_text(terminal: bool) -> None:
    stream = io.StringIO()
    console = SafeConsole(file=stream, force_terminal=terminal, width=200)
    table = Table("name")
    table.add_row(EVIL)
    console.print("[red]said[/]", EVIL, table, markup=True)
    shown = stream.getvalue()
    assert ("\x1b[31msaid" in shown) == terminal
    for command in ("\x1b[2J", "\x1b]0;", "\x1b[8m", "\x07", "\r", "\x9b", "\u202e"):
        assert command not in shown


def test_of_what_click_writes_only_our_colours_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    assert escaped(click.style("done", fg="green", bold=True)) == click.style("done", fg="green", bold=True)
    assert escaped("\x1b[8m") == r"\x1b[8m"
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with protected_streams():
        _show_error(OpsError(f"The verdict {EVIL} cannot be read.", detail=EVIL, hint=EVIL))
    assert stream.getvalue().count(r"\x1b]0;owned\x07") == 3
    assert not set("\x1b\x07\r\x9b\u202e") & set(stream.getvalue())


def test_pages_and_markdown_hold_no_command_either() -> None:
    evil = f"{EVIL}<img src=x>![](http://evil)\n# heading"
    shown = escaped_markdown(evil)
    assert not set("\x1b\n\u202e") & set(shown)
    assert r"\<img src=x\>\!\[\](http://evil)" in shown
    listed = bullets([evil]).value
    assert listed is not None and listed.count("\n") == 0
    block = sql_block(['DROP INDEX "```\x1b[2J"'])
    assert block.startswith("````sql\n") and block.endswith("\n````") and "\x1b" not in block
    page = page_template("tmi_ops.drill").environment.from_string("{{ name }}").render(name=EVIL + "<b>")
    assert page == printable(EVIL) + "&lt;b&gt;"
