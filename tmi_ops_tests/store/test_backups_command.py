"""`tmi-ops backups` shows what it can read, and says what it cannot."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from tmi_ops.cli.main import tmi_ops
from tmi_ops.settings import StoreSettings
from tmi_ops.store.objects import ObjectStore
from tmi_ops_tests.store.conftest import ENVIRONMENT, RawBucket
from tmi_ops_tests.store.test_signed_documents import NOW, take_backup


def test_a_damaged_manifest_hides_only_itself(
    store: ObjectStore,
    raw: RawBucket,
    store_settings: StoreSettings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sound, damaged = take_backup(store), take_backup(store, NOW - timedelta(days=1), end="bbbb")
    raw.write(f"logical/{damaged.backup_id}/manifest.json", b"{")
    assert store_settings.access_key_id is not None
    assert store_settings.secret_access_key is not None
    variables = {
        "TMI_ENV": ENVIRONMENT,
        "TMI_OPS_S3_ENDPOINT_URL": store_settings.endpoint_url or "",
        "TMI_OPS_S3_BUCKET": store_settings.bucket or "",
        "TMI_OPS_S3_PREFIX": store_settings.prefix,
        "TMI_OPS_S3_ACCESS_KEY_ID": store_settings.access_key_id.get_secret_value(),
        "TMI_OPS_S3_SECRET_ACCESS_KEY": store_settings.secret_access_key.get_secret_value(),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tmi_ops.main(args=["backups"], standalone_mode=False) == 1
    said = capsys.readouterr()
    assert sound.backup_id in said.out
    assert damaged.backup_id in said.err
    assert tmi_ops.main(args=["backups", "--json"], standalone_mode=False) == 1
    assert [one["backup_id"] for one in json.loads(capsys.readouterr().out)] == [sound.backup_id]
