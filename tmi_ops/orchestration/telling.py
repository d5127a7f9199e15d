"""Texts that Dagster shows: each command in them names the environment (`tmi_ops/command_texts.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckResult,
    AssetMaterialization,
    AssetObservation,
    Failure,
    MarkdownMetadataValue,
    MaterializeResult,
    MetadataValue,
    RetryRequested,
    SensorResult,
    SkipReason,
    TableMetadataValue,
    TableRecord,
    TableSchema,
    TextMetadataValue,
)
from dagster_shared.record import replace

Change = Callable[[str], str]


def told(result: Any, change: Change) -> Any:
    """What an asset, an op or a sensor returns, with `change` applied to the texts that people read."""
    if isinstance(result, MaterializeResult):
        return replace(
            result,
            metadata=told_metadata(result.metadata, change),
            check_results=[told(one, change) for one in result.check_results or ()],
        )
    if isinstance(result, AssetCheckResult | AssetMaterialization | AssetObservation):
        return result._replace(**_told_of(result, change))
    if isinstance(result, AssetCheckEvaluation):
        return replace(result, **_told_of(result, change))
    if isinstance(result, SkipReason):
        return SkipReason(change(result.skip_message or ""))
    return _sensor_result(result, change) if isinstance(result, SensorResult) else result


def tell_failure(error: BaseException, change: Change) -> None:
    """Apply `change` to the texts of a failure that a step raises."""
    known = error.__cause__ if isinstance(error, RetryRequested) else error
    if isinstance(known, Failure):
        known.description = change(known.description or "") or None
        known.metadata = told_metadata(known.metadata, change)


def told_metadata(metadata: Mapping[str, Any] | None, change: Change) -> dict[str, Any]:
    """The metadata with `change` applied to texts, Markdown and tables."""
    return {name: _told_value(value, change) for name, value in (metadata or {}).items()}


def _told_of(event: Any, change: Change) -> dict[str, Any]:
    described = {"description": change(event.description)} if event.description else {}
    return {**described, "metadata": told_metadata(event.metadata, change)}


def _told_value(value: Any, change: Change) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, TextMetadataValue):
        return MetadataValue.text(change(value.text or ""))
    if isinstance(value, MarkdownMetadataValue):
        return MetadataValue.md(change(value.md_str or ""))
    if isinstance(value, TableMetadataValue):
        records = [
            TableRecord({name: change(cell) if isinstance(cell, str) else cell for name, cell in record.data.items()})
            for record in value.records
        ]
        schema: TableSchema = value.schema
        return MetadataValue.table(records, schema)
    return value


def _sensor_result(result: SensorResult, change: Change) -> SensorResult:
    why = result.skip_reason
    said = why.skip_message if isinstance(why, SkipReason) else why
    return SensorResult(
        run_requests=result.run_requests,
        skip_reason=change(said) if said else None,
        cursor=result.cursor,
        dynamic_partitions_requests=result.dynamic_partitions_requests,
        asset_events=[told(event, change) for event in result.asset_events],
    )
