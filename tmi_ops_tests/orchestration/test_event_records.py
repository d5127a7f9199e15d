from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetKey,
    AssetMaterialization,
    AssetRecordsFilter,
    DagsterInstance,
)

from tmi_ops.orchestration.event_records import forget_events

KEPT, RUN_KEPT = timedelta(days=14), timedelta(days=90)
OURS, BESIDE, OTHER = (AssetKey([name, "recovery", "heartbeat"]) for name in ("shop", "shop_2", "production"))


def beat(instance: DagsterInstance, asset: AssetKey, number: int) -> None:
    instance.report_runless_asset_event(AssetMaterialization(asset, metadata={"beat": number}))
    instance.report_runless_asset_event(AssetCheckEvaluation(asset_key=asset, check_name="sound", passed=number > 1))


def beats(instance: DagsterInstance, asset: AssetKey) -> list[object]:
    records = instance.fetch_materializations(AssetRecordsFilter(asset), limit=10).records
    found = [record.asset_materialization for record in records]
    return [None if one is None else one.metadata["beat"].value for one in found]


def checked(instance: DagsterInstance, asset: AssetKey) -> int:
    storage = instance.event_log_storage
    return len(storage.get_asset_check_execution_history(AssetCheckKey(asset, "sound"), limit=10))


def test_what_ticks_recorded_goes_when_it_is_old_but_for_the_newest_and_others_keep_theirs() -> None:
    with DagsterInstance.ephemeral() as instance:
        for asset in (OURS, BESIDE, OTHER):
            for number in (1, 2, 3):
                beat(instance, asset, number)
        now = datetime.now(UTC)
        assert forget_events(instance, ["shop"], now + KEPT - timedelta(hours=1), KEPT, RUN_KEPT) == 0
        assert beats(instance, OURS) == [3, 2, 1]
        # Two materializations, two results of a check, and the two events of these.
        assert forget_events(instance, ["shop"], now + KEPT + timedelta(hours=1), KEPT, RUN_KEPT) == 6
        assert (beats(instance, OURS), checked(instance, OURS)) == ([3], 1)
        for asset in (BESIDE, OTHER):
            assert (beats(instance, asset), checked(instance, asset)) == ([3, 2, 1], 3)
        assert forget_events(instance, ["shop"], now + KEPT + timedelta(days=400), KEPT, RUN_KEPT) == 0
