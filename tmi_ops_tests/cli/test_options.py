"""One text for one option."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from tmi_ops.cli.main import tmi_ops
from tmi_ops.cli.options import dry_run_option

# Of these a command gives its own meaning to the name.
OF_THE_COMMAND = {
    "--all", "--allow", "--backup", "--from-shadow", "--into", "--listen", "--only", "--port", "--reason", "--record",
    "--seed", "--table", "--verbose", "--wait", "--cluster", "--name",
}  # fmt: skip


def commands(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, f"{path} {name}".strip())


ALL = dict(commands(tmi_ops))


def options_of(command: click.Command) -> list[click.Option]:
    return [parameter for parameter in command.params if isinstance(parameter, click.Option)]


def test_an_option_of_several_commands_has_one_text() -> None:
    texts: defaultdict[str, defaultdict[str | None, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path, command in ALL.items():
        for option in options_of(command):
            texts[option.opts[0]][option.help].append(path)
    assert {
        name: dict(by_text) for name, by_text in texts.items() if len(by_text) > 1 and name not in OF_THE_COMMAND
    } == {}


@pytest.mark.parametrize("path", ALL)
def test_every_option_is_explained_and_every_page_fits_80_columns(path: str) -> None:
    command = ALL[path]
    for option in options_of(command):
        assert option.help, option.name
        assert option.help[0].isupper() or option.help.startswith("custom:"), option.help
        assert option.help.rstrip("]").endswith((".", "Default: 6.")) or "[default" in option.help, option.help
    context = click.Context(command, info_name=path or "tmi-ops", terminal_width=80, max_content_width=80)
    assert max(map(len, command.get_help(context).splitlines())) <= 80


def test_dry_run_and_plan_are_one_option_and_help_shows_the_first() -> None:
    @click.command()
    @dry_run_option
    def command(dry_run: bool) -> None:
        click.echo(dry_run)

    run = CliRunner()
    assert [run.invoke(command, words).output for words in ([], ["--plan"], ["--dry-run"])] == [
        "False\n",
        "True\n",
        "True\n",
    ]
    told = run.invoke(command, ["--help"]).output
    assert "--dry-run" in told
    assert "--plan" not in told
