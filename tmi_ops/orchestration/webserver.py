"""Dagster's webserver with an allowlist of host names: `python -m tmi_ops.orchestration.webserver`, same options.

It restarts code servers that it started itself and that died. Dagster's own webserver only reconnects to those of a
`grpc_server` entry; with the others every launch fails until somebody presses "Reload".

The webserver has no login and accepts every request. A web page that an operator visits could reach this machine under
another name (DNS rebinding), or send a form to it, and launch a run. So the Host of a request must be one of
TMI_OPS_UI_HOSTS, and so must its Origin if the browser sends one.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tmi_ops.stack.instance_mark import HEADER, instance_mark

if TYPE_CHECKING:
    from dagster._core.workspace.context import WorkspaceProcessContext

HOSTS = "TMI_OPS_UI_HOSTS"
LOOK_EVERY_S = 2.0
TRY_AGAIN_AFTER_S = 60.0
OF_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_Scope = MutableMapping[str, Any]
_App = Callable[[_Scope, Callable[..., Awaitable[Any]], Callable[..., Awaitable[Any]]], Awaitable[None]]


def allowed_hosts(said: str) -> frozenset[str]:
    """The allowed host names; those of this machine if none are given."""
    return frozenset(said.lower().replace(",", " ").split()) or frozenset(OF_THIS_MACHINE)


def is_allowed(headers: Iterable[tuple[bytes, bytes]], hosts: frozenset[str]) -> bool:
    """Whether Host, and Origin if there is one, are allowed."""
    named = [value.decode("latin-1") for name, value in headers if name.lower() == b"host"]
    origins = [value.decode("latin-1") for name, value in headers if name.lower() == b"origin"]
    if len(named) != 1 or _host(f"//{named[0]}") not in hosts:
        return False
    return all(_host(origin) in hosts for origin in origins)


class OwnNamesOnly:
    """ASGI middleware that answers 403 to other hosts, and marks every response with the instance."""

    def __init__(self, app: _App, hosts: frozenset[str], mark: str = "") -> None:
        self._app = app
        self._hosts = hosts
        self._header = (HEADER.encode(), mark.encode())

    async def __call__(
        self, scope: _Scope, receive: Callable[..., Awaitable[Any]], send: Callable[..., Awaitable[Any]]
    ) -> None:
        async def send_marked(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), self._header]
            await send(message)

        if scope["type"] not in ("http", "websocket") or is_allowed(scope["headers"], self._hosts):
            await self._app(scope, receive, send_marked)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            said = f"403: host name not allowed. Add it to {HOSTS}.\n".encode()
            headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(said)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": said})


def revive_code_servers(context: WorkspaceProcessContext) -> list[str]:
    """Restart code servers of this process that died, or that failed to start a while ago. Returns the names of their
    locations."""
    from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin

    revived = []
    for origin in context._origins:  # Dagster offers no other way to what it started
        if not isinstance(origin, ManagedGrpcPythonEnvCodeLocationOrigin):
            continue
        if _is_gone(context._grpc_server_registry._active_entries.get(origin.get_id())):
            context.reload_code_location(origin.location_name)
            revived.append(origin.location_name)
    return revived


def _is_gone(started: Any) -> bool:
    from dagster._core.remote_representation.grpc_server_registry import ErrorRegistryEntry, ServerRegistryEntry

    if isinstance(started, ErrorRegistryEntry):
        return time.time() - started.creation_timestamp > TRY_AGAIN_AFTER_S
    return isinstance(started, ServerRegistryEntry) and started.process.server_process.poll() is not None


def _keep_alive(context: WorkspaceProcessContext) -> None:
    while True:
        time.sleep(LOOK_EVERY_S)
        try:
            for name in revive_code_servers(context):
                logging.getLogger(__name__).warning("The code server of %s had died and was restarted.", name)
        except Exception:  # the webserver must go on, and the next look tries again
            logging.getLogger(__name__).exception("A code server that died could not be restarted.")


def main() -> None:
    from dagster_webserver import cli
    from dagster_webserver.webserver import DagsterWebserver
    from starlette.middleware import Middleware

    hosts = allowed_hosts(os.environ.get(HOSTS, ""))
    mark = instance_mark(os.environ.get("DAGSTER_HOME", ""))
    dagsters_own = DagsterWebserver.build_middleware

    def build_middleware(webserver: Any) -> list[Middleware]:
        # Once for each webserver, when it is made.
        context = webserver._process_context
        threading.Thread(target=_keep_alive, args=(context,), name="code servers", daemon=True).start()
        return [Middleware(OwnNamesOnly, hosts=hosts, mark=mark), *dagsters_own(webserver)]

    setattr(DagsterWebserver, "build_middleware", build_middleware)  # noqa: B010 - as a method of its own would be
    cli.dagster_webserver(auto_envvar_prefix="DAGSTER_WEBSERVER")


def _host(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""


if __name__ == "__main__":
    main()
