"""The chain of links, in the order in which a person would check them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from tmi_ops.checks.finding import Result
from tmi_ops.diagnosis.cache import CACHE_LINKS
from tmi_ops.diagnosis.chain import Link, walk
from tmi_ops.diagnosis.configuration import CONFIGURATION_LINKS, ROOM_LINKS
from tmi_ops.diagnosis.context import DiagnosisContext
from tmi_ops.diagnosis.database import DATABASE_LINKS
from tmi_ops.diagnosis.finding import Diagnosis
from tmi_ops.diagnosis.reaching import REACHING
from tmi_ops.diagnosis.scheduling import SCHEDULING_LINKS
from tmi_ops.diagnosis.store import STORE_LINKS
from tmi_ops.diagnosis.store_directory import DIRECTORY_LINKS
from tmi_ops.diagnosis.trust import TRUST_LINKS
from tmi_ops.diagnosis.wal import WAL_LINKS
from tmi_ops.errors import OpsError

CHAIN: tuple[Link, ...] = (
    *CONFIGURATION_LINKS,
    *REACHING,
    *DATABASE_LINKS,
    *ROOM_LINKS,
    *WAL_LINKS,
    *STORE_LINKS,
    *DIRECTORY_LINKS,
    *TRUST_LINKS,
    *CACHE_LINKS,
    *SCHEDULING_LINKS,
)


def diagnose(
    variables: Mapping[str, str] | None = None,
    directory: Path | None = None,
    *,
    dagster: Mapping[str, str] | None = None,
    watch: Callable[[Result], None] = lambda result: None,
) -> Diagnosis:
    """Walk the chain from the settings to the schedules. The only thing it changes is one small object in the store,
    which it removes again; it never raises for what it finds.

    Args:
        variables: of the process; None: `os.environ`.
        directory: of the .env files; None: the working directory.
        dagster: DAGSTER_PG_HOST, _PORT, _USERNAME, _PASSWORD and _DB of Dagster's records; None: from `variables`.
            Without DAGSTER_PG_HOST, scheduling is not checked.
        watch: called with each result as soon as it is known.
    """
    process = dict(os.environ if variables is None else variables)
    context = DiagnosisContext(process, directory or Path.cwd(), process if dagster is None else dagster)
    results: list[Result] = []
    try:
        for result in walk(_links(context), context):
            results.append(result)
            watch(result)
    finally:
        context.close()
    return Diagnosis(process.get("TMI_ENV", "development").strip(), datetime.now(UTC), tuple(results))


def _links(context: DiagnosisContext) -> tuple[Link, ...]:
    """Those of a directory only where the store is one; of a server all, as a directory lacks what they check."""
    with suppress(OpsError):
        if context.settings.store.directory is not None:
            return CHAIN
    return tuple(link for link in CHAIN if link not in DIRECTORY_LINKS)
