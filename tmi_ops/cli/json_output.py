"""What `--json` prints: one document on stdout."""

from __future__ import annotations

import json
from typing import Any

import click

from tmi_ops.cli.printed_commands import facts_as_typed


def echo_json(facts: Any, *, indent: int | None = 2) -> None:
    """Print JSON, with the environment in commands. Types that JSON lacks become text."""
    click.echo(json.dumps(facts_as_typed(facts), indent=indent, default=str))
