"""One healthy environment, which each test breaks in one place."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tmi_ops.diagnosis.diagnose import diagnose
from tmi_ops.diagnosis.finding import Diagnosis
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import SilentReport
from tmi_ops.schema.migration import migrate
from tmi_ops.settings import PostgresSettings, RedisSettings, StoreSettings
from tmi_ops.store.s3 import visit
from tmi_ops.store.s3.client import store_session
from tmi_ops_tests.house import House, house

Variables = dict[str, str]
Examine = Callable[..., Diagnosis]


@pytest.fixture(scope="session", autouse=True)
def one_boto_session() -> Iterator[None]:
    """A session takes boto 0.2 s to make; here a hundred doctors share one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(visit, "store_session", functools.cache(store_session))
        yield


@pytest.fixture(scope="session")
def server_house(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> Iterator[House]:
    """A server with everything tmi_ops asks for, and TMI's tables in the database `tmi`."""
    with house(programs, tmp_path_factory.mktemp("house")) as built:
        migrate(built.address.model_copy(update={"database": "tmi"}), SilentReport())
        with connect(built.address, "tmi") as connection:
            connection.execute("CREATE EXTENSION pg_stat_statements")
        yield built


def login(postgres: PostgresSettings) -> Variables:
    assert postgres.password is not None
    return {
        "POSTGRES_HOST": postgres.host,
        "POSTGRES_PORT": str(postgres.port),
        "POSTGRES_USER": postgres.user,
        "POSTGRES_PASSWORD": postgres.password.get_secret_value(),
    }


@pytest.fixture
def healthy(
    server_house: House, store_settings: StoreSettings, redis_server: RedisSettings, tmp_path: Path
) -> Variables:
    """The variables of an environment in which nothing is broken."""
    assert store_settings.access_key_id
    assert store_settings.secret_access_key
    assert redis_server.password
    return {
        **login(server_house.address),
        "TMI_ENV": "development",
        "TMI_OPS_HOME": str(tmp_path / "home"),
        "POSTGRES_DB": "tmi",
        "POSTGRES_SSLMODE": "disable",
        "REDIS_HOST": redis_server.host,
        "REDIS_PORT": str(redis_server.port),
        "REDIS_PASSWORD": redis_server.password.get_secret_value(),
        "TMI_OPS_S3_ENDPOINT_URL": store_settings.endpoint_url or "",
        "TMI_OPS_S3_BUCKET": store_settings.bucket or "",
        "TMI_OPS_S3_PREFIX": store_settings.prefix,
        "TMI_OPS_S3_ACCESS_KEY_ID": store_settings.access_key_id.get_secret_value(),
        "TMI_OPS_S3_SECRET_ACCESS_KEY": store_settings.secret_access_key.get_secret_value(),
    }


@pytest.fixture
def examine(healthy: Variables, tmp_path: Path) -> Examine:
    """Diagnose the healthy environment with some variables changed; None takes one away."""

    def look(changes: dict[str, str | None] | None = None, /, **more: str | None) -> Diagnosis:
        changed = {**healthy, **(changes or {}), **more}
        return diagnose({name: value for name, value in changed.items() if value is not None}, tmp_path)

    return look
