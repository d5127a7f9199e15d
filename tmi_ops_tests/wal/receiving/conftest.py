"""A cluster whose WAL is received, and receivers in threads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tmi_ops.postgres.cluster import RunningCluster
from tmi_ops.postgres.programs import Programs
from tmi_ops.settings import Settings, StoreSettings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops_tests.physical import physical_cluster, settings_for


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> Iterator[RunningCluster]:
    """One cluster for the tests that neither kill nor promote it."""
    with physical_cluster(programs, tmp_path_factory.mktemp("received")) as running:
        yield running


@pytest.fixture
def source(cluster: RunningCluster, store_settings: StoreSettings, tmp_path: Path) -> Settings:
    return settings_for(cluster.address, store_settings, tmp_path)


@pytest.fixture
def store(source: Settings) -> ObjectStore:
    return open_store(source.store, source.environment)
