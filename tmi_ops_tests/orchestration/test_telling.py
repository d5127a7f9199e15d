"""Commands that Dagster shows say which environment they are about, whichever way they come into its pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import (
    AssetCheckResult,
    AssetCheckSpec,
    AssetKey,
    AssetObservation,
    Definitions,
    MetadataValue,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    TableRecord,
    asset,
    build_sensor_context,
    materialize,
    sensor,
)

from tmi_ops.errors import StoreError
from tmi_ops.orchestration.protected import Protected, protected
from tmi_ops.orchestration.resources import Environment, failures_explained
from tmi_ops.orchestration.results import Materialized
from tmi_ops.orchestration.serving import environment_definitions, fleet_definitions
from tmi_ops.orchestration.telling import told

BARE = re.compile(r"(?<![\w./-])tmi-ops (?!-e )[a-z][a-z-]*")
NAMES = ("production", "production/billing", "shop")


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMI_ENV", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tmi-ops.toml").write_text(
        '[environments.production.databases.billing]\n[environments.shop]\nTMI_OPS_RPO = "1h"\nTMI_OPS_RTO = "2h"\n'
    )


@pytest.fixture
def shop() -> Protected:
    return protected("shop").at_place(1)


def texts(definitions: Definitions) -> Iterator[str]:
    repository = definitions.get_repository_def()
    for spec in definitions.resolve_all_asset_specs():
        yield spec.description or ""
    for node in definitions.resolve_asset_graph().asset_check_keys:
        yield definitions.resolve_asset_graph().get(node).description or ""
    for job in repository.get_all_jobs():
        yield job.description or ""
        for step in job.graph.node_defs:
            yield step.description or ""
    for automatic in (*repository.schedule_defs, *repository.sensor_defs):
        yield automatic.description or ""


def test_every_description_of_every_definition_names_whose_it_is() -> None:
    said = list(texts(fleet_definitions(NAMES)))
    assert [text for text in said if BARE.search(text)] == []
    assert {name for name in NAMES for text in said if f"tmi-ops -e {name} " in text} == set(NAMES)


def test_an_environment_served_alone_is_named_unless_a_bare_command_means_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmi-ops.toml").unlink()
    monkeypatch.setenv("TMI_ENV", "production")
    assert [text for text in texts(environment_definitions("production")) if BARE.search(text)] == []
    monkeypatch.delenv("TMI_ENV")
    assert any("`tmi-ops backup base`" in text for text in texts(environment_definitions("development")))


def test_what_a_step_returns_carries_it(shop: Protected) -> None:
    key = shop.key("told")

    @asset(key=key, check_specs=[AssetCheckSpec("well", asset=key)])
    @shop.given
    def makes(environment: Environment) -> Materialized:
        return Materialized(
            metadata={
                "text": "tmi-ops status",
                "markdown": MetadataValue.md("`tmi-ops status`"),
                "table": MetadataValue.table([TableRecord({"what helps": "tmi-ops doctor", "number": 3})]),
                "size": 17,
            },
            check_results=[AssetCheckResult(passed=False, check_name="well", description="x → tmi-ops backup base")],
        )

    result = materialize([makes], resources={shop.resource: Environment(name="shop")})
    made = result.asset_materializations_for_node(makes.op.name)[0].metadata
    assert made["text"].value == "tmi-ops -e shop status"
    assert made["markdown"].value == "`tmi-ops -e shop status`"
    assert made["table"].records[0].data == {"what helps": "tmi-ops -e shop doctor", "number": 3}  # type: ignore[union-attr]
    assert made["size"].value == 17
    assert result.get_asset_check_evaluations()[0].description == "x → tmi-ops -e shop backup base"


def test_a_failure_carries_it_to_the_page_and_to_the_alert_that_quotes_it(shop: Protected) -> None:
    @asset(key=shop.key("fails"))
    @shop.given
    def fails(environment: Environment) -> None:
        with failures_explained():
            raise StoreError("There is no backup.", hint="make one: `tmi-ops backup logical`")

    result = materialize([fails], resources={shop.resource: Environment(name="shop")}, raise_on_error=False)
    failure = result.failure_data_for_node(fails.op.name).user_failure_data  # type: ignore[union-attr]
    assert failure.metadata["next step"].value == "make one: `tmi-ops -e shop backup logical`"  # type: ignore[union-attr]
    assert failure.description == (  # type: ignore[union-attr]
        "There is no backup. Nothing was changed. HINT: Make one: `tmi-ops -e shop backup logical`"
    )


def test_a_sensors_look_carries_it(shop: Protected) -> None:
    @sensor(name=shop.called("looks"), target="*")
    @shop.looking
    def looks(context: SensorEvaluationContext, environment: Environment) -> SensorResult:
        seen = AssetObservation(AssetKey("a"), description="tmi-ops doctor")
        return SensorResult(skip_reason="late: `tmi-ops wal stream`", cursor="tmi-ops status", asset_events=[seen])

    with build_sensor_context() as context:
        said = looks(context)
    assert isinstance(said, SensorResult)
    assert isinstance(said.skip_reason, SkipReason)
    assert said.skip_reason.skip_message == "late: `tmi-ops -e shop wal stream`"
    assert said.asset_events[0].description == "tmi-ops -e shop doctor"
    assert said.cursor == "tmi-ops status", "what is remembered is nobody's to read"
    skipped = told(SkipReason("tmi-ops doctor"), shop.for_people)
    assert skipped.skip_message == "tmi-ops -e shop doctor"
