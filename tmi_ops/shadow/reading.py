"""The shadows as others see them: by their reports in the store, and the one of this machine by its fresher one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tmi_ops.errors import OpsError
from tmi_ops.settings import Settings
from tmi_ops.shadow.place import Reachable, is_running, read_local
from tmi_ops.shadow.report import KnownReport, ShadowReport, age_of, read_reports
from tmi_ops.store.objects import ObjectStore


def known_shadows(
    settings: Settings, store: ObjectStore, broken: Callable[[OpsError], object] = lambda _: None
) -> list[KnownReport]:
    """All that report, the freshest first.

    Args:
        broken: told of each report in the store that is not believed.

    Raises:
        StoreError: the store failed.
    """
    return with_own(settings, read_reports(store, broken))


def with_own(settings: Settings, reports: list[KnownReport]) -> list[KnownReport]:
    """This machine's shadow by what it says here, where that is fresher than what it has told the store."""
    local = read_local(settings)
    if local is None or local.report.environment != settings.environment or not is_running(settings):
        return reports
    own = KnownReport(local.report, age_of(local.report, timedelta(0), datetime.now(UTC)))
    others = [one for one in reports if one.report.name != own.report.name]
    return sorted((own, *others), key=lambda one: one.age)


def reachable_here(settings: Settings, report: ShadowReport) -> Reachable | None:
    """How this shadow's server is reached, where it runs on this machine."""
    local = read_local(settings)
    if local is None or local.report.name != report.name or not is_running(settings):
        return None
    return local.reachable
