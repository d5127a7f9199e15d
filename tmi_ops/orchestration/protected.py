"""What definitions are made for: one protected database, its names in Dagster, and what its settings say of when.

Served alone, an environment has the plain names. Beside others in one code location each name begins with its own, so
that several `Definitions` can be merged.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from dagster import AssetKey, DefaultSensorStatus

from tmi_ops.automation.naming import flat_name, name_among_others
from tmi_ops.automation.switch import Automation, read_automation
from tmi_ops.objectives.staggering import shifted
from tmi_ops.objectives.timetable import Timetable, plan_timetable
from tmi_ops.profile import Profile, read_profile
from tmi_ops.profile.reading import VARIABLE as PROFILE
from tmi_ops.settings import Declared, Objectives, read_source
from tmi_ops.settings.groups import objectives_from
from tmi_ops.settings.reading import settings_name

# The parameter by which assets, ops and sensors ask for their environment.
RESOURCE = "environment"
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Protected:
    """One protected database.

    Attributes:
        name: `production`, or `production/billing` for another database of its cluster.
        environment: whose cluster it is of.
        is_environment: whether the cluster's base backups, WAL and drills are its business.
        among_others: whether its names are told apart from those of others.
        declared: where the runs find its settings, where that is no file of ours.
    """

    name: str
    environment: str
    is_environment: bool
    profile: Profile
    objectives: Objectives
    timetable: Timetable
    automation: Automation
    among_others: bool = False
    declared: Declared | None = None

    @property
    def flat(self) -> str:
        """The name where only letters, digits and _ may stand."""
        return flat_name(self.name)

    @property
    def path(self) -> list[str]:
        return self.name.split("/")

    @property
    def resource(self) -> str:
        return self.called(RESOURCE)

    @property
    def sensor_status(self) -> DefaultSensorStatus:
        """Running wherever schedules are."""
        return DefaultSensorStatus.RUNNING if self.automation.running else DefaultSensorStatus.STOPPED

    def key(self, *path: str) -> AssetKey:
        """Of its asset."""
        return AssetKey([*self.path, *path])

    def called(self, plain: str) -> str:
        """The name of its job, schedule, sensor, op or resource."""
        return name_among_others(self.name, plain) if self.among_others else plain

    def step_of_several(self, assets: str) -> str:
        """The name of a step that makes several assets: beside others its job would be called so, too."""
        return f"{self.flat}__{assets}_assets" if self.among_others else f"{self.flat}__{assets}"

    def at_place(self, number: int) -> Protected:
        """One of several, its schedules shifted against those of the others."""
        return replace(self, among_others=True, timetable=shifted(self.timetable, number))

    def given(self, function: Function) -> Function:
        """Below a decorator of Dagster's: gives the function's parameter `environment` the resource of this one."""
        if not self.among_others:
            return function

        def renamed(resources: dict[str, Any]) -> dict[str, Any]:
            return {RESOURCE if name == self.resource else name: value for name, value in resources.items()}

        @functools.wraps(function)
        def once(*args: Any, **resources: Any) -> Any:
            return function(*args, **renamed(resources))

        @functools.wraps(function)
        def step_by_step(*args: Any, **resources: Any) -> Any:
            return (yield from function(*args, **renamed(resources)))

        call = step_by_step if inspect.isgeneratorfunction(function) else once
        signature = inspect.signature(function, eval_str=True)
        parameters = [
            parameter.replace(name=self.resource) if name == RESOURCE else parameter
            for name, parameter in signature.parameters.items()
        ]
        # Dagster reads which resources are asked for from the signature.
        call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return call  # type: ignore[return-value]


def protected(of: str | Declared, environ: Mapping[str, str] | None = None) -> Protected:
    """Read once what its definitions rest on; no secret is read.

    Raises:
        SettingsError: it is unknown, or its settings or its profile are malformed.
    """
    source = read_source(environ, of=of, secrets=False)
    objectives = objectives_from(source.environment, source.values)
    return Protected(
        name=settings_name(source),
        environment=source.environment,
        is_environment=source.database is None,
        profile=read_profile(source.values.get(PROFILE), source.directory),
        objectives=objectives,
        timetable=plan_timetable(objectives),
        automation=read_automation(source.environment, source.values),
        declared=of if isinstance(of, Declared) else None,
    )
