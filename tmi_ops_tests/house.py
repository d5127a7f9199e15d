"""A server whose every setting can be broken and mended as its administrator would: by files, SQL and a restart."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from tmi_ops.postgres.cluster import RunningCluster, free_port, initialise_cluster, start_cluster
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.unprivileged import ServerIdentity, server_identity
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.physical import reload_configuration

# In postgresql.conf, so that ALTER SYSTEM wins over it.
PARAMETERS: Mapping[str, str] = {
    "wal_level": "replica",
    "max_wal_senders": "8",
    "max_replication_slots": "4",
    "max_connections": "30",
    "max_slot_wal_keep_size": "64MB",
    "min_wal_size": "32MB",
    "shared_preload_libraries": "pg_stat_statements",
    "shared_buffers": "32MB",
    "fsync": "off",
}
# Before, reading is granted table by table.
READ_ALL_DATA_SINCE = 14


@dataclass
class House:
    """`address` is the superuser's, in the database `postgres`."""

    programs: Programs
    data: Path
    address: PostgresSettings
    identity: ServerIdentity
    cluster: RunningCluster

    def restart(self) -> None:
        self.cluster.stop()
        self.cluster = _start(self.programs, self.data, self.identity, self.address)

    def configure(self, **parameters: str) -> None:
        """Restart with these parameters, and no others changed since it was built."""
        self.run(
            "ALTER SYSTEM RESET ALL", *(f"ALTER SYSTEM SET {name} = '{value}'" for name, value in parameters.items())
        )
        self.restart()

    def configure_files(self, parameters: Mapping[str, str]) -> None:
        """As `configure`, where SQL cannot reach the server any more because pg_hba.conf has changed."""
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in parameters.items())
        self.restart()

    def run(self, *statements: str, database: str | None = None) -> None:
        """Statements as a superuser, one by one, as psql would send them."""
        with connect(self.address, database) as connection:
            for statement in statements:
                connection.execute(statement)

    @contextmanager
    def hba(self, *lines: str) -> Iterator[None]:
        """pg_hba.conf with these lines first, for the length of a `with` block."""
        file = self.data / "pg_hba.conf"
        before = file.read_text()
        file.write_text("\n".join(lines) + "\n" + before)
        reload_configuration(self.address)
        try:
            yield
        finally:
            file.write_text(before)
            reload_configuration(self.address)

    @contextmanager
    def role(self, *attributes: str, reads: bool = False) -> Iterator[PostgresSettings]:
        """A role that logs in with a password, and has what `attributes` say; `reads`: every table there is."""
        name, password = f"role_{secrets.token_hex(3)}", secrets.token_urlsafe(12)
        self.run(f"CREATE ROLE {name} LOGIN PASSWORD '{password}' {' '.join(attributes)}")
        if reads:
            self._let_read(name)
        try:
            yield self.address.model_copy(update={"user": name, "password": SecretStr(password)})
        finally:
            self.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '" + name + "'")
            for database in self._databases():
                self.run(f"DROP OWNED BY {name}", database=database)
            self.run(f"DROP ROLE IF EXISTS {name}")

    def _let_read(self, role: str) -> None:
        if self.programs.major >= READ_ALL_DATA_SINCE:
            self.run(f"GRANT pg_read_all_data TO {role}")
            return
        for database in self._databases():
            for things in ("TABLES", "SEQUENCES"):
                self.run(f"GRANT SELECT ON ALL {things} IN SCHEMA public TO {role}", database=database)

    def _databases(self) -> list[str]:
        with connect(self.address) as connection:
            return [name for (name,) in connection.execute("SELECT datname FROM pg_database WHERE datallowconn")]


@contextmanager
def house(programs: Programs, root: Path, parameters: Mapping[str, str] | None = None) -> Iterator[House]:
    """A server of its own below `root`, for the length of a `with` block."""
    root.chmod(0o755)
    address = PostgresSettings(
        host="127.0.0.1",
        port=free_port(),
        user="postgres",
        password=SecretStr(secrets.token_urlsafe(12)),
        database="postgres",
        sslmode="disable",
    )
    data = root / "data"
    assert address.password is not None
    identity = initialise_cluster(programs, data, superuser="postgres", password=address.password, sync=False)
    with (data / "postgresql.conf").open("a") as file:
        file.writelines(f"{name} = '{value}'\n" for name, value in {**PARAMETERS, **(parameters or {})}.items())
    built = House(programs, data, address, identity, _start(programs, data, identity, address))
    try:
        yield built
    finally:
        built.cluster.stop()


def _start(programs: Programs, data: Path, identity: ServerIdentity, address: PostgresSettings) -> RunningCluster:
    server_identity(programs.path("postgres"), data.parent).take_over(data)
    return start_cluster(programs, data, identity, address, parameters={}, log=data.parent / "server.log")
