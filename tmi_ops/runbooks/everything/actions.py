"""The actions for the steps of this runbook."""

from __future__ import annotations

from tmi_ops.runbooks.everything.logical import RESTORE
from tmi_ops.runbooks.execution import Actions
from tmi_ops.runbooks.serving.steps import CONNECT, PROVISION, SERVE
from tmi_ops.runbooks.steps.cache import CACHE_OR_NEW
from tmi_ops.runbooks.steps.hooks import HEALTH, START
from tmi_ops.runbooks.steps.recover import RECOVER

ACTIONS: Actions = {
    "recover": RECOVER,
    "restore": RESTORE,
    "provision": PROVISION,
    "serve": SERVE,
    "connect": CONNECT,
    "cache": CACHE_OR_NEW,
    "start": START,
    "health": HEALTH,
}
