"""Stops and starts the application with its hooks, and checks its health URL."""

from __future__ import annotations

from tmi_ops.runbooks.application import (
    HEALTH_URL,
    VARIABLES,
    Application,
    Hook,
    await_health,
    read_application,
    run_hook,
)
from tmi_ops.runbooks.execution import Action, Work
from tmi_ops.runbooks.journal import Answer
from tmi_ops.runbooks.plan import Step

STOP_STEP = "stop"


def stop_steps(application: Application) -> tuple[Step, ...]:
    if "stop" not in application.hooks:
        return ()
    return (
        Step(
            name=STOP_STEP,
            does="stop the application with its stop hook",
            effect="interrupts",
            way_back=f"{'run the start hook' if 'start' in application.hooks else 'start it yourself'} once it can "
            "connect again",
        ),
    )


def start_steps(application: Application) -> tuple[Step, ...]:
    steps = []
    if "start" in application.hooks:
        steps.append(Step(name="start", does="start the application with its start hook", effect="irreversible"))
    if application.health_url is not None:
        steps.append(Step(name="health", does="poll the application's health URL until it is healthy"))
    return tuple(steps)


def missing_stop(application: Application) -> tuple[str, ...]:
    """What a person should do before confirming."""
    if "stop" in application.hooks:
        return ()
    return (
        f"{VARIABLES['stop']} is not set: stop the application yourself. If you do not, it keeps running without "
        "database access.",
    )


def missing_start(application: Application) -> tuple[str, ...]:
    """What a person must do when all steps are done."""
    left = []
    if "start" not in application.hooks:
        left.append(f"Start the application ({VARIABLES['start']} is not set).")
    if application.health_url is None:
        left.append(f"Check that the application is healthy ({HEALTH_URL} is not set).")
    return tuple(left)


def run_step_hook(work: Work, hook: Hook) -> None:
    said = run_hook(read_application(work.settings.variables), hook, {"TMI_OPS_RUN_ID": work.journal.run_id})
    work.say(f"{VARIABLES[hook]} is not set." if said is None else f"The {hook} hook succeeded{_quoted(said)}.")


def _quoted(said: str) -> str:
    return f": {said}" if said else ""


def _ask(work: Work) -> None:
    url = read_application(work.settings.variables).health_url
    if url is None:
        work.say(f"{HEALTH_URL} is not set.")
        return
    took = await_health(url)
    detail = f"Healthy after {took:.1f} s."
    work.say(detail)
    work.answer(Answer(title="Application health", outcome="passed", detail=detail, seconds=took))


STOP = Action(lambda work: run_step_hook(work, "stop"))
START = Action(lambda work: run_step_hook(work, "start"), needs=("serve",))
HEALTH = Action(_ask, needs=("serve",))
