"""The actions for the steps of this runbook."""

from __future__ import annotations

from tmi_ops.runbooks.corruption.in_place import CLEAR_UP, LOAD, SWAP, VALIDATE
from tmi_ops.runbooks.corruption.lost import COUNT
from tmi_ops.runbooks.execution import Actions
from tmi_ops.runbooks.serving.steps import CONNECT, PROVISION, SERVE
from tmi_ops.runbooks.steps.archive import ARCHIVE
from tmi_ops.runbooks.steps.cache import CACHE
from tmi_ops.runbooks.steps.fence import FENCE, LIFT
from tmi_ops.runbooks.steps.hold import HOLD
from tmi_ops.runbooks.steps.hooks import HEALTH, START, STOP
from tmi_ops.runbooks.steps.recover import RECOVER

ACTIONS: Actions = {
    "fence": FENCE,
    "stop": STOP,
    "archive": ARCHIVE,
    "hold": HOLD,
    "recover": RECOVER,
    "count": COUNT,
    "load": LOAD,
    "validate": VALIDATE,
    "swap": SWAP,
    "provision": PROVISION,
    "serve": SERVE,
    "connect": CONNECT,
    "cache": CACHE,
    "lift": LIFT,
    "start": START,
    "health": HEALTH,
    "clear up": CLEAR_UP,
}
