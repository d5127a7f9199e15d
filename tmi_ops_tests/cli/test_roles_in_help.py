"""Each command says which role it logs in as, and the one that it says is the one that it uses."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator

import click
import pytest

from tmi_ops.cli.main import _COMMANDS, LazyGroup, tmi_ops
from tmi_ops.settings import Purpose

# They open the store alone, or say it themselves.
WITHOUT = {"backups", "drills", "recover list", "recover show"}


def commands(group: click.Group, name: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for one in group.list_commands(context):
        command = group.get_command(context, one)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{name}{one} ")
        else:
            yield f"{name}{one}", command


def used_by(command: click.Command) -> set[Purpose]:
    """The purposes that its own function names."""
    assert command.callback is not None
    tree = ast.parse(inspect.getsource(inspect.unwrap(command.callback)))
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {
        Purpose[node.attr]
        for statement in function.body
        for node in ast.walk(statement)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Purpose"
    }


def test_a_command_that_opens_the_environment_for_a_purpose_says_so() -> None:
    assert isinstance(tmi_ops, LazyGroup) and _COMMANDS
    said = 0
    for name, command in commands(tmi_ops):
        used = used_by(command) if name not in WITHOUT else set()
        if used:
            assert any(f"({purpose})" in (command.epilog or "") for purpose in used), name
            said += 1
    assert said > 15


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("migrate", "TMI_OPS_OWNER_USER or else POSTGRES_USER"),
        ("migrate", "(owner): ownership of the database and its tables"),
        ("heartbeat", "TMI_OPS_HEARTBEAT_USER or else TMI_OPS_OWNER_USER or else POSTGRES_USER"),
        ("restore", "(restorer): CREATEDB"),
        ("status", "(monitor): pg_monitor"),
    ],
)
def test_the_role_is_named_with_its_variables_and_rights(name: str, words: str) -> None:
    command = tmi_ops.get_command(click.Context(tmi_ops), name)
    assert command is not None
    assert words in (command.epilog or "")
