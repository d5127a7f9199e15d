from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tmi_ops.backup.logical import back_up_logical
from tmi_ops.progress import SilentReport
from tmi_ops.settings import Settings
from tmi_ops.store.manifest import Manifest
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops_tests.backup.source import drop_role, fill_source


@dataclass(frozen=True)
class BackedUp:
    """A filled source database and a logical backup of it."""

    settings: Settings
    store: ObjectStore
    manifest: Manifest
    role: str


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return open_store(settings.store, settings.environment)


@pytest.fixture
def role() -> str:
    return f"app_{secrets.token_hex(4)}"


@pytest.fixture
def source(settings: Settings, role: str) -> Iterator[Settings]:
    fill_source(settings.postgres, role=role)
    yield settings
    drop_role(settings.postgres, role)


@pytest.fixture
def backed_up(source: Settings, store: ObjectStore, role: str) -> BackedUp:
    manifest = back_up_logical(source, store, "custom", SilentReport())
    return BackedUp(source, store, manifest, role)
