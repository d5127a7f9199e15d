"""What Object Lock is set on, and when it is extended: decided without a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tmi_ops.errors import SettingsError
from tmi_ops.settings import Retain
from tmi_ops.settings.groups import retain_of
from tmi_ops.store.locking import is_locked_kind, lock_request, needs_longer

NOW = datetime(2026, 11, 27, 20, 0, 0, 5, UTC)
RETAIN = Retain(period=timedelta(days=30))
BASE, DUMP = "base/20261127T000000Z-base-0000", "logical/20261127T000000Z-logical-0000"


@pytest.mark.parametrize(
    "key",
    [
        f"{BASE}/base.tar.zst", f"{BASE}/manifest.json", f"{BASE}/manifest.json.minisig", f"{BASE}/SHA256SUMS",
        f"{DUMP}/verdict-20261127T000000000000Z-0000.json", f"{DUMP}/database.dir/toc.dat", "drills/x.html",
        "restore-points/before the release.json", "wal/7/00000001/000000010000000000000001.zst",
        "wal/7/00000002.history.zst",
    ],
)  # fmt: skip
def test_what_a_recovery_needs_and_never_changes_is_locked(key: str) -> None:
    assert is_locked_kind(key)
    assert lock_request(RETAIN, key, NOW) == {
        "ObjectLockMode": "GOVERNANCE",
        "ObjectLockRetainUntilDate": datetime(2026, 12, 27, 20, 0, tzinfo=UTC),
    }
    assert lock_request(None, key, NOW) == {}


@pytest.mark.parametrize(
    "key",
    [
        "wal/7/00000001/000000010000000000000001.partial.zst", "wal/7/lease.json", "wal/7/cluster.json",
        f"{BASE}/hold.json", f"{BASE}/hold.json.minisig", "objectives/2026-11-27.json", "alerts/x.json",
        "runbooks/x/journal.json", ".conditional-put", ".doctor/host", "RESTORE.md", "health/x",
    ],
)  # fmt: skip
def test_what_is_replaced_or_taken_away_is_not_or_every_version_of_it_would_stay(key: str) -> None:
    assert not is_locked_kind(key)


def test_a_lock_is_extended_when_less_than_half_of_it_is_left() -> None:
    half = RETAIN.period / 2
    assert needs_longer(RETAIN, None, NOW)
    assert needs_longer(RETAIN, NOW + half - timedelta(seconds=1), NOW)
    assert not needs_longer(RETAIN, NOW + half, NOW)


@pytest.mark.parametrize(
    ("text", "retain"),
    [
        ("30d", RETAIN),
        ("30d|governance", RETAIN),
        ("1d12h compliance", Retain(period=timedelta(hours=36), mode="COMPLIANCE")),
    ],
)
def test_retention_is_read_from_its_setting(text: str, retain: Retain) -> None:
    assert retain_of(text) == retain


@pytest.mark.parametrize("text", ["forever", "30d|forever", "0d", "30d|governance|compliance"])
def test_what_is_no_retention_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        retain_of(text)
