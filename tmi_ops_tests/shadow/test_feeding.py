"""What a shadow's feeder finds in a real store, without a server."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from tmi_ops.postgres.unprivileged import ServerIdentity
from tmi_ops.postgres.wal_files import Segment, format_lsn
from tmi_ops.settings import StoreSettings
from tmi_ops.shadow.feeder import Feeder
from tmi_ops.store.minisign import new_secret_key
from tmi_ops.store.objects import open_store
from tmi_ops.store.trust import Trust, TrustedKey
from tmi_ops.wal.layout import file_key
from tmi_ops.wal.lineage import lineage
from tmi_ops.wal.stored_file import store_once
from tmi_ops_tests.postgres.wal_pages import FIRST, SIZE, SYSTEM, Wal, filler

CLUSTER = str(SYSTEM)


@pytest.mark.parametrize("signed", ["by a stranger", "not at all"])
def test_a_segment_that_no_pinned_key_signed_is_not_delivered_and_named_untrusted(
    store_settings: StoreSettings, tmp_path: Path, signed: str
) -> None:
    key = new_secret_key()
    pinned = Trust("development", key, (TrustedKey(key.public, ("writer",)),))
    opened = open_store(store_settings, "development")
    other = Trust("development", new_secret_key(), ()) if signed == "by a stranger" else Trust()
    segment = Segment(1, FIRST, SIZE)
    (content,) = Wal().add(filler(100), filler(200)).segments()
    store_once(replace(opened, trust=other), CLUSTER, segment.name, content, segment.end)
    ready = tmp_path / "ready"
    store = replace(opened, trust=pinned)
    with Feeder(store, CLUSTER, SIZE, lineage(1, ()), FIRST, ready, ServerIdentity()) as feeder:
        deadline = time.monotonic() + 60
        while feeder.met is None and time.monotonic() < deadline:
            time.sleep(0.02)
        met = feeder.met
        assert met is not None
        assert (met.kind, met.segment, format_lsn(met.lsn or 0)) == (
            "untrusted object", segment.name, format_lsn(FIRST),
        )  # fmt: skip
        assert list(ready.iterdir()) == []

        store.delete([file_key(CLUSTER, segment.name)])
        store_once(store, CLUSTER, segment.name, content, segment.end)
        delivered = ready / segment.name  # it is written beside its name, then renamed
        while not delivered.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert delivered.read_bytes() == content
        assert feeder.met is None
