"""`tmi-ops wal ...`: each command is in a module of its own."""

from __future__ import annotations

import click

from tmi_ops.cli.wal_gaps import gaps
from tmi_ops.cli.wal_line import line
from tmi_ops.cli.wal_push import push
from tmi_ops.cli.wal_stream import status, stream


@click.group()
def wal() -> None:
    """Archive the server's WAL and check the archive for gaps."""


wal.add_command(stream)
wal.add_command(status)
wal.add_command(gaps)
wal.add_command(push)
wal.add_command(line)
