"""Options that runbooks share: the moment, the new server, and the run itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tmi_ops.cli.moments import one_target, to_a_moment
from tmi_ops.cli.options import cache_option, dry_run_option, quiet_option, yes_option

if TYPE_CHECKING:
    from tmi_ops.runbooks.serving.steps import ServeRequest
    from tmi_ops.runbooks.steps.recover import Moment

Command = TypeVar("Command", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path, dir_okay=False)


def of_a_moment(command: Command) -> Command:
    """The moment, and the backup to restore."""
    return _with(
        command,
        to_a_moment(latest=True),
        click.option("--backup", metavar="ID", help="Restore this backup (id or its beginning)."),
    )


def of_a_server(command: Command) -> Command:
    """A new server, and how the application gets its connection."""
    return _with(
        command,
        click.option(
            "--port", type=click.IntRange(1, 65535), help="Port of the new server. Default: POSTGRES_PORT, or 5432."
        ),
        click.option("--listen", metavar="ADDRESSES", help="Addresses to listen on; '*' for all. Default: localhost."),
        click.option("--host", metavar="NAME", help="Host name clients use to connect. Default: 127.0.0.1."),
        click.option(
            "--owner", metavar="ACCOUNT", help="Account that will run the server. Default: postgres if it exists."
        ),
        click.option(
            "--allow", multiple=True, metavar="CIDR", help="Network that may connect with a password; repeatable."
        ),
        click.option(
            "--env-file", type=_FILE, help="Write the connection variables to this file; its other lines stay."
        ),
        click.option(
            "--secret-file", type=_FILE, help="Write a Kubernetes Secret to this file, for `kubectl apply -f`."
        ),
        click.option("--secret-name", metavar="NAME", help="Name of the Secret. Default: tmi-database."),
        click.option("--secret-namespace", metavar="NAME", help="Namespace of the Secret."),
    )


def of_a_run(command: Command) -> Command:
    """How to execute the run."""
    return _with(
        command,
        cache_option,
        dry_run_option,
        yes_option,
        quiet_option,
    )


def moment_of(to_time: datetime | None, to_lsn: int | None, to_name: str | None, *, latest: bool) -> Moment | None:
    """None: find the last good one."""
    from tmi_ops.runbooks.steps.recover import Moment

    target = one_target(to_time, to_lsn, to_name, latest=latest, exclusive=False)
    return None if target is None else Moment(time=target.time, lsn=target.lsn, name=target.name)


def serve_request(server: Mapping[str, Any], default_port: int) -> ServeRequest:
    """The options of `of_a_server` that were given."""
    from tmi_ops.runbooks.application import read_application
    from tmi_ops.runbooks.serving.steps import ServeRequest

    names = {"listen": "addresses", "allow": "allowed"}
    given = {names.get(name, name): value for name, value in server.items() if value and name != "owner"}
    files = {name: str(given[name].absolute()) for name in ("env_file", "secret_file") if name in given}
    role = next(iter(read_application().roles), None)
    return ServeRequest.model_validate({"port": default_port, "role": role, **given, **files})


def _with(command: Command, *options: Callable[[Command], Command]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
