"""Dagster's webserver, for the names that we gave it alone: `python -m tmi_ops.orchestration.webserver`, same options.

The webserver has no login and believes every request. A web page that an operator visits could name this machine by a
name of its own (DNS rebinding), or send a form to it, and launch a run. So a request must name one of TMI_OPS_UI_HOSTS
as its host, and, where a browser says from which page it comes, that page must be of one of them, too.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

HOSTS = "TMI_OPS_UI_HOSTS"
OF_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_Scope = MutableMapping[str, Any]
_App = Callable[[_Scope, Callable[..., Awaitable[Any]], Callable[..., Awaitable[Any]]], Awaitable[None]]


def allowed_hosts(said: str) -> frozenset[str]:
    """The names by which the page may be called; those of this machine where nothing is said."""
    return frozenset(said.lower().replace(",", " ").split()) or frozenset(OF_THIS_MACHINE)


def is_allowed(headers: Iterable[tuple[bytes, bytes]], hosts: frozenset[str]) -> bool:
    """Whether a request calls us by one of our names, and comes from no other page."""
    named = [value.decode("latin-1") for name, value in headers if name.lower() == b"host"]
    origins = [value.decode("latin-1") for name, value in headers if name.lower() == b"origin"]
    if len(named) != 1 or _host(f"//{named[0]}") not in hosts:
        return False
    return all(_host(origin) in hosts for origin in origins)


class OwnNamesOnly:
    """ASGI middleware that answers 403 to everything else."""

    def __init__(self, app: _App, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(
        self, scope: _Scope, receive: Callable[..., Awaitable[Any]], send: Callable[..., Awaitable[Any]]
    ) -> None:
        if scope["type"] not in ("http", "websocket") or is_allowed(scope["headers"], self._hosts):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            said = f"403: this is not a name of this server. Names are in {HOSTS}.\n".encode()
            headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(said)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": said})


def main() -> None:
    from dagster_webserver import cli
    from dagster_webserver.webserver import DagsterWebserver
    from starlette.middleware import Middleware

    hosts = allowed_hosts(os.environ.get(HOSTS, ""))
    dagsters_own = DagsterWebserver.build_middleware

    def build_middleware(webserver: Any) -> list[Middleware]:
        return [Middleware(OwnNamesOnly, hosts=hosts), *dagsters_own(webserver)]

    setattr(DagsterWebserver, "build_middleware", build_middleware)  # noqa: B010 - as a method of its own would be
    cli.dagster_webserver(auto_envvar_prefix="DAGSTER_WEBSERVER")


def _host(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""


if __name__ == "__main__":
    main()
