"""One small cluster for all tests of base backups, and a bucket of its own for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tmi_ops.postgres.cluster import RunningCluster
from tmi_ops.postgres.programs import Programs
from tmi_ops.settings import Settings, StoreSettings
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops_tests.physical import make_noise_table, physical_cluster, settings_for


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> Iterator[RunningCluster]:
    """Holds the table `kept`, 20 MB that do not compress."""
    with physical_cluster(programs, tmp_path_factory.mktemp("base-source")) as cluster:
        make_noise_table(cluster.address, "kept", rows=20_000)
        yield cluster


@pytest.fixture
def source(cluster: RunningCluster, store_settings: StoreSettings, tmp_path: Path) -> Settings:
    return settings_for(cluster.address, store_settings, tmp_path / "home")


@pytest.fixture
def store(source: Settings) -> ObjectStore:
    return open_store(source.store, source.environment)
