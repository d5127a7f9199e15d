"""What a person finds in a job's launchpad: the defaults, and as errors only what must be given."""

from __future__ import annotations

import pytest
import yaml
from dagster import DagsterInvalidConfigError, validate_run_config
from dagster._config.errors import DagsterEvaluationErrorReason
from dagster._core.snap.snap_to_yaml import default_values_yaml_from_type_snap

from tmi_ops.definitions import environment_definitions

DEFINITIONS = environment_definitions("development")
JOBS = sorted(job.name for job in DEFINITIONS.get_repository_def().get_all_jobs() if not job.name.startswith("__"))
MISSING = {
    DagsterEvaluationErrorReason.MISSING_REQUIRED_FIELD,
    DagsterEvaluationErrorReason.MISSING_REQUIRED_FIELDS,
}


@pytest.mark.parametrize("name", JOBS)
def test_the_defaults_contradict_nothing(name: str) -> None:
    job = DEFINITIONS.resolve_job_def(name)
    snapshot = job.get_job_snapshot()
    known = snapshot.config_schema_snapshot
    root = snapshot.mode_def_snaps[0].root_config_key
    assert root is not None
    filled_in = yaml.safe_load(default_values_yaml_from_type_snap(known, known.get_config_snap(root)))
    try:
        validate_run_config(job, filled_in)
    except DagsterInvalidConfigError as error:
        assert {one.reason for one in error.errors} <= MISSING, error.message
