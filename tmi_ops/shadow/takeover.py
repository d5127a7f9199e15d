"""Takes over a shadow's cluster from the process that runs it, or by running it for that purpose."""

from __future__ import annotations

import platform
import secrets
import threading
from pathlib import Path

from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError
from tmi_ops.progress import Report
from tmi_ops.settings import Settings
from tmi_ops.shadow.files import require_place
from tmi_ops.shadow.life import Life, ShadowOptions
from tmi_ops.shadow.place import (
    HandedOver,
    Request,
    Seed,
    ask,
    forget_requests,
    is_running,
    only_one,
    place,
    read_local,
    read_seed,
)
from tmi_ops.shadow.report import name_from
from tmi_ops.shadow.reporting import Reporter
from tmi_ops.store.objects import ObjectStore

# A shadow that is up to date is promoted in seconds. Another one catches up first and reports its progress.
PATIENCE_S = 6 * 3600.0
_NO_SHADOW = "run `tmi-ops shadow run` as a service, or leave out --from-shadow"


def require_shadow(settings: Settings) -> Seed:
    """Where this machine's shadow came from.

    Raises:
        RecoveryError: there is no shadow here.
    """
    seed = read_seed(settings)
    if seed is None:
        raise RecoveryError(f"There is no shadow in {place(settings)}.", hint=_NO_SHADOW, code=Code.NO_SHADOW)
    return seed


def take_shadow(settings: Settings, store: ObjectStore, into: Path, report: Report) -> HandedOver:
    """Let the shadow replay all archived WAL, promote and stop it, and move its files to `into`.

    Raises:
        RecoveryError: there is no shadow, or it refuses; then it continues as before.
        OpsError: as `run_shadow`.
    """
    require_shadow(settings)
    require_place(settings, into)
    if is_running(settings):
        report.note("Asking the process that runs the shadow to hand it over.")
        reply = ask(settings, "hand over", into, PATIENCE_S)
        if reply.handed_over is None:
            raise RecoveryError("The shadow replied without handing over its files.", code=Code.SHADOW_FAILED)
        return reply.handed_over
    return _run_and_take(settings, store, into, report)


def _run_and_take(settings: Settings, store: ObjectStore, into: Path, report: Report) -> HandedOver:
    with only_one(settings):
        forget_requests(settings)
        local = read_local(settings)
        name = local.report.name if local else name_from(platform.node())
        options = ShadowOptions(name=name, checks=False)
        request = Request(number=secrets.token_hex(4), action="hand over", into=str(into))
        with Reporter(settings, store, name, options.report_every, 0.0, report) as reporter:
            life = Life(settings, store, options, report, threading.Event(), reporter, pending=request)
            handed_over = life.live()
    if handed_over is None:
        raise RecoveryError("The shadow ended before it was handed over.", code=Code.SHADOW_FAILED)
    return handed_over
