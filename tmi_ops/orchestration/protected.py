"""One protected database: its names in Dagster, its profile, objectives and timetable.

Served alone, an environment has plain names. With others in one code location, each name begins with the
environment's, so that several `Definitions` can be merged.
"""

from __future__ import annotations

import functools
import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from dagster import (
    AssetKey,
    AssetsDefinition,
    DefaultSensorStatus,
    ExecutorDefinition,
    JobDefinition,
    ResourceDefinition,
    define_asset_job,
)
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster_shared.record import as_dict

from tmi_ops.automation.naming import environment_of, flat_name, name_among_others, plain_name
from tmi_ops.automation.switch import Automation, read_automation
from tmi_ops.command_texts import with_environment
from tmi_ops.objectives.staggering import shifted
from tmi_ops.objectives.timetable import Timetable, plan_timetable
from tmi_ops.orchestration.resources import Environment
from tmi_ops.orchestration.telling import tell_failure, told
from tmi_ops.profile import Profile, read_profile
from tmi_ops.profile.reading import VARIABLE as PROFILE
from tmi_ops.settings import Declared, Objectives, name_for_others, read_source
from tmi_ops.settings.groups import objectives_from

# The parameter by which assets and ops ask for their environment.
RESOURCE = "environment"
Function = TypeVar("Function", bound=Callable[..., Any])
C = TypeVar("C")
R = TypeVar("R")


class _JobOfOne(UnresolvedAssetJobDefinition):
    """A job that knows only its own environment. Dagster gives every job all resources and assets of the code location,
    which for 200 environments takes gigabytes."""

    def resolve(
        self,
        asset_graph: AssetGraph,
        default_executor_def: ExecutorDefinition | None = None,
        resource_defs: Mapping[str, ResourceDefinition] | None = None,
    ) -> JobDefinition:
        own = {
            key: resource
            for key, resource in (resource_defs or {}).items()
            if plain_name(key) != RESOURCE or _whose(key) == _whose(self.name)
        }
        return super().resolve(_own_assets(asset_graph, self.name), default_executor_def, own)


def _own_assets(all_assets: AssetGraph, job: str) -> AssetGraph:
    return _by_environment(all_assets).get(environment_of(job), all_assets)


@functools.lru_cache(maxsize=2)
def _by_environment(all_assets: AssetGraph) -> Mapping[str, AssetGraph]:
    found: defaultdict[str, list[AssetsDefinition]] = defaultdict(list)
    for definition in all_assets.assets_defs:
        found[next(iter(definition.keys)).path[0]].append(definition)
    return {environment: AssetGraph.from_assets(definitions) for environment, definitions in found.items()}


def _whose(called: str) -> str:
    return called.removesuffix(plain_name(called))


@dataclass(frozen=True)
class Protected:
    """One protected database.

    Attributes:
        name: `production`, or `production/billing` for another database of its cluster.
        environment: the environment of its cluster.
        is_environment: whether the cluster's base backups, WAL and drills belong to it.
        among_others: whether its names in Dagster begin with the environment's.
        declared: where runs find its settings, if that is no file of ours.
        said: its name, if commands must carry it.
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
    said: str | None = None

    @property
    def flat(self) -> str:
        """The name with only letters, digits and _."""
        return flat_name(self.name)

    @property
    def path(self) -> list[str]:
        return self.name.split("/")

    @property
    def resource(self) -> str:
        return self.called(RESOURCE)

    @property
    def sensor_status(self) -> DefaultSensorStatus:
        """Running if the schedules are."""
        return DefaultSensorStatus.RUNNING if self.automation.running else DefaultSensorStatus.STOPPED

    def key(self, *path: str) -> AssetKey:
        """The key of one of its assets."""
        return AssetKey([*self.path, *path])

    def called(self, plain: str) -> str:
        """The name of its job, schedule, sensor, op or resource."""
        return name_among_others(self.name, plain) if self.among_others else plain

    def step_of_several(self, assets: str) -> str:
        """The name of a step that makes several assets; it must differ from the job's."""
        return f"{self.flat}__{assets}_assets" if self.among_others else f"{self.flat}__{assets}"

    def asset_job(self, plain: str, **job: Any) -> UnresolvedAssetJobDefinition:
        """A job over its own assets, as `define_asset_job` makes it."""
        defined = define_asset_job(self.called(plain), **job)
        return _JobOfOne(**as_dict(defined)) if self.among_others else defined

    @property
    def of_its_jobs(self) -> dict[str, Any]:
        """The resources of a job over ops. From the code location it would get those of all environments."""
        return {self.resource: self.made()} if self.among_others else {}

    def made(self) -> Environment:
        """The resource."""
        if self.declared is None:
            return Environment(name=self.name)
        return Environment(name=self.name, declared=dict(self.declared.layers[0]), declared_in=str(self.declared.file))

    def at_place(self, number: int) -> Protected:
        """As one of several, with its schedules shifted against those of the others."""
        return replace(self, among_others=True, timetable=shifted(self.timetable, number))

    def for_people(self, text: str) -> str:
        """A text for people: each command in it names the environment, so that it can be pasted anywhere."""
        return with_environment(text, self.said)

    def looking(self, look: Callable[[C, Environment], R]) -> Callable[[C], R]:
        """For use below a sensor's decorator: passes this environment, and adds its name to commands in what the
        function returns.

        It is no resource: for those, Dagster connects to its records at each look, 0.04 CPU s.
        """

        def call(context: C) -> R:
            found: R = told(look(context, self.made()), self.for_people)
            return found

        call.__name__, call.__annotations__ = look.__name__, {}  # Dagster would read the types of `look` here
        return call

    def given(self, function: Function) -> Function:
        """For use below the decorator of an asset or an op: passes this environment's resource as `environment`, and
        adds the environment's name to commands in what the function returns."""
        if not self.among_others and self.said is None:
            return function

        def renamed(resources: dict[str, Any]) -> dict[str, Any]:
            return {RESOURCE if name == self.resource else name: value for name, value in resources.items()}

        @functools.wraps(function)
        def once(*args: Any, **resources: Any) -> Any:
            try:
                return told(function(*args, **renamed(resources)), self.for_people)
            except Exception as error:
                tell_failure(error, self.for_people)
                raise

        @functools.wraps(function)
        def step_by_step(*args: Any, **resources: Any) -> Any:
            try:
                for result in function(*args, **renamed(resources)):
                    yield told(result, self.for_people)
            except Exception as error:
                tell_failure(error, self.for_people)
                raise

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
    """Read what its definitions depend on; no secret is read.

    Raises:
        SettingsError: the environment is unknown, or its settings or its profile are malformed.
    """
    source = read_source(environ, of=of, secrets=False)
    objectives = objectives_from(source.environment, source.values)
    return Protected(
        name=source.name,
        environment=source.environment,
        is_environment=source.database is None,
        profile=read_profile(source.values.get(PROFILE), source.directory),
        objectives=objectives,
        timetable=plan_timetable(objectives),
        automation=read_automation(source.environment, source.values),
        declared=of if isinstance(of, Declared) else None,
        said=name_for_others(source.name, environ),
    )
