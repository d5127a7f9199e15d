"""Reads the shadows' reports: from the store, and this machine's own from its more recent local report."""

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
    """All shadows that report, the most recent report first.

    Args:
        broken: called for each report in the store that cannot be read or has no trusted signature.

    Raises:
        StoreError: the store failed.
    """
    return with_own(settings, read_reports(store, broken))


def with_own(settings: Settings, reports: list[KnownReport]) -> list[KnownReport]:
    """Replace the stored report of this machine's shadow by its local one, if that is running."""
    local = read_local(settings)
    if local is None or local.report.environment != settings.environment or not is_running(settings):
        return reports
    own = KnownReport(local.report, age_of(local.report, timedelta(0), datetime.now(UTC)))
    others = [one for one in reports if one.report.name != own.report.name]
    return sorted((own, *others), key=lambda one: one.age)


def reachable_here(settings: Settings, report: ShadowReport) -> Reachable | None:
    """How to connect to this shadow's server, if it runs on this machine."""
    local = read_local(settings)
    if local is None or local.report.name != report.name or not is_running(settings):
        return None
    return local.reachable
