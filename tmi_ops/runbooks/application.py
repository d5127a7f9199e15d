"""The application as a runbook knows it: hooks that stop and start it, and a URL for its health.

Hooks are read from the environment when needed and never stored, because they may contain secrets.
"""

from __future__ import annotations

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError, SettingsError
from tmi_ops.settings import read_variables

Hook = Literal["stop", "start", "connect"]
VARIABLES: Mapping[Hook, str] = {
    "stop": "TMI_OPS_STOP_HOOK",
    "start": "TMI_OPS_START_HOOK",
    "connect": "TMI_OPS_CONNECT_HOOK",
}
ROLES, HEALTH_URL = "TMI_OPS_APP_ROLE", "TMI_OPS_APP_HEALTH_URL"
HOOK_TIMEOUT_S = 300.0
# A server that has just been started needs time to connect and to warm up.
WELL_WITHIN_S = 120.0
_ASK_EVERY_S, _ANSWER_WITHIN_S = 1.0, 10.0
_LINES_SHOWN = 5


@dataclass(frozen=True)
class Application:
    """Args:
    roles: the roles it logs in with; empty if not configured.
    hooks: shell commands by purpose.
    health_url: answers 2xx when the application is healthy.
    """

    roles: tuple[str, ...] = ()
    hooks: Mapping[Hook, str] = field(default_factory=dict, repr=False)
    health_url: str | None = field(default=None, repr=False)


def read_application(variables: Mapping[str, str] | None = None) -> Application:
    """Read the application's settings from the environment.

    Raises:
        SettingsError: the health URL is not an http or https URL.
    """
    values = read_variables() if variables is None else variables
    url = values.get(HEALTH_URL) or None
    if url is not None and urlsplit(url).scheme not in ("http", "https"):
        raise SettingsError(f"{HEALTH_URL} is not an http or https URL.", hint="write it as `http://host/health`")
    return Application(
        roles=tuple(part.strip() for part in values.get(ROLES, "").split(",") if part.strip()),
        hooks={hook: values[variable] for hook, variable in VARIABLES.items() if values.get(variable)},
        health_url=url,
    )


def run_hook(application: Application, hook: Hook, told: Mapping[str, str]) -> str | None:
    """Run a hook with /bin/sh and wait for it.

    Args:
        told: environment variables in addition to those of this process; may include secrets.

    Returns:
        The last line it printed; None if the hook is not set.

    Raises:
        RecoveryError: it failed or timed out.
    """
    command = application.hooks.get(hook)
    if command is None:
        return None
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            env={**os.environ, **told},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=HOOK_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise RecoveryError(
            f"The {hook} hook did not finish within {HOOK_TIMEOUT_S:.0f} s and was killed.",
            detail="Whatever it did until then stays.",
            hint=f"find out what {VARIABLES[hook]} waits for",
            code=Code.HOOK_FAILED,
        ) from None
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if done.returncode != 0:
        said = " / ".join(lines[-_LINES_SHOWN:]) or "no output"
        raise RecoveryError(
            f"The {hook} hook exited with {done.returncode}: {said}.",
            detail="Whatever it did until then stays.",
            hint=f"fix what {VARIABLES[hook]} runs; the hook is run again and must tolerate that",
            code=Code.HOOK_FAILED,
        )
    return lines[-1] if lines else ""


def await_health(url: str, within_s: float = WELL_WITHIN_S) -> float:
    """Poll the health URL until the application is healthy.

    Returns:
        Seconds until it was.

    Raises:
        RecoveryError: it was not healthy in time; the message has its last answer.
    """
    begun = time.monotonic()
    while True:
        said = _answer(url)
        if said is None:
            return time.monotonic() - begun
        if time.monotonic() - begun > within_s:
            raise RecoveryError(
                f"The application is not healthy after {within_s:.0f} s: {said}.",
                hint=f"check its log, and whether {HEALTH_URL} is correct",
                code=Code.APPLICATION_UNHEALTHY,
                transient=True,
            )
        time.sleep(_ASK_EVERY_S)


def _answer(url: str) -> str | None:
    """None if it is healthy."""
    try:
        with urllib.request.urlopen(url, timeout=_ANSWER_WITHIN_S):  # noqa: S310 - http or https only
            return None
    except urllib.error.HTTPError as error:
        return f"it answers {error.code}"
    except (OSError, ValueError) as error:
        return f"it does not answer ({getattr(error, 'reason', error)})"
