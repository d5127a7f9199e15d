from __future__ import annotations

from collections.abc import Iterator

import pytest

from tmi_ops.postgres.programs import Programs
from tmi_ops.settings import StoreSettings
from tmi_ops_tests.drill.lives import Lived, a_life
from tmi_ops_tests.recovery.point_in_time.conftest import own_store


@pytest.fixture(scope="session")
def lived(
    tmp_path_factory: pytest.TempPathFactory, programs: Programs, s3: StoreSettings, shared_bucket: str
) -> Iterator[Lived]:
    with a_life(tmp_path_factory.mktemp("lived"), programs, own_store(s3, shared_bucket)) as lived:
        yield lived
