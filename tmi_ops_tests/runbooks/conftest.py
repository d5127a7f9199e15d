"""A TMI of each module's own, whose disasters are its tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tmi_ops.postgres.programs import Programs
from tmi_ops.settings import RedisSettings, StoreSettings
from tmi_ops_tests.recovery.point_in_time.conftest import own_store
from tmi_ops_tests.runbooks.disasters import Tmi, a_tmi


@pytest.fixture(scope="module")
def tmi(
    tmp_path_factory: pytest.TempPathFactory,
    programs: Programs,
    s3: StoreSettings,
    shared_bucket: str,
    redis_server: RedisSettings,
) -> Iterator[Tmi]:
    with a_tmi(tmp_path_factory.mktemp("tmi"), programs, own_store(s3, shared_bucket), redis_server) as tmi:
        yield tmi
