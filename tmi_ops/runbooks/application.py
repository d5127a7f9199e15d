"""The application as a runbook knows it: hooks that stop and start it, and a URL that says whether it is well.

They are read from the environment when they are needed and never written down: a hook may hold a secret.
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
# A server that has just been started needs a while to connect and to warm up.
WELL_WITHIN_S = 120.0
_ASK_EVERY_S, _ANSWER_WITHIN_S = 1.0, 10.0
_LINES_SHOWN = 5


@dataclass(frozen=True)
class Application:
    """Args:
    roles: those it logs in with; empty: not told.
    hooks: shell commands, by what they do.
    health_url: answers 2xx when it is well.
    """

    roles: tuple[str, ...] = ()
    hooks: Mapping[Hook, str] = field(default_factory=dict, repr=False)
    health_url: str | None = field(default=None, repr=False)


def read_application(variables: Mapping[str, str] | None = None) -> Application:
    """What the environment says of the application.

    Raises:
        SettingsError: the health URL is none.
    """
    values = read_variables() if variables is None else variables
    url = values.get(HEALTH_URL) or None
    if url is not None and urlsplit(url).scheme not in ("http", "https"):
        raise SettingsError(f"{HEALTH_URL} is not an http or https URL.", hint="write it as http://host/health")
    return Application(
        roles=tuple(part.strip() for part in values.get(ROLES, "").split(",") if part.strip()),
        hooks={hook: values[variable] for hook, variable in VARIABLES.items() if values.get(variable)},
        health_url=url,
    )


def run_hook(application: Application, hook: Hook, told: Mapping[str, str]) -> str | None:
    """Run a hook with /bin/sh, and wait for its end.

    Args:
        told: variables for it, beside those of this process. Secrets go this way, too.

    Returns:
        The last line it printed; None where there is no such hook.

    Raises:
        RecoveryError: it failed, or did not end in time.
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
            f"The {hook} hook did not end within {HOOK_TIMEOUT_S:.0f} s and was ended.",
            hint=f"see what {VARIABLES[hook]} waits for",
        ) from None
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if done.returncode != 0:
        said = " / ".join(lines[-_LINES_SHOWN:]) or "it said nothing"
        raise RecoveryError(
            f"The {hook} hook exited with {done.returncode}: {said}.",
            hint=f"mend what {VARIABLES[hook]} runs; it is run again then, so it must bear that",
        )
    return lines[-1] if lines else ""


def await_health(url: str, within_s: float = WELL_WITHIN_S) -> float:
    """Ask until the application says that it is well.

    Returns:
        Seconds until it did.

    Raises:
        RecoveryError: it did not in time; the message has its last answer.
    """
    begun = time.monotonic()
    while True:
        said = _answer(url)
        if said is None:
            return time.monotonic() - begun
        if time.monotonic() - begun > within_s:
            raise RecoveryError(
                f"The application is not well after {within_s:.0f} s: {said}.",
                hint=f"look at its log, and whether {HEALTH_URL} is right",
                transient=True,
            )
        time.sleep(_ASK_EVERY_S)


def _answer(url: str) -> str | None:
    """None: it is well."""
    try:
        with urllib.request.urlopen(url, timeout=_ANSWER_WITHIN_S):  # noqa: S310 - http or https only
            return None
    except urllib.error.HTTPError as error:
        return f"it answers {error.code}"
    except (OSError, ValueError) as error:
        return f"it does not answer ({getattr(error, 'reason', error)})"
