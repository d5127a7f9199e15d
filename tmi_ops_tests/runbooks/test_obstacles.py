"""What would stop a run between its steps is a line of its plan, each with what helps."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.connections import connect
from tmi_ops.progress import SilentReport
from tmi_ops.runbooks.execution import begin
from tmi_ops.runbooks.obstacles import (
    fence_obstacles,
    file_obstacles,
    key_obstacles,
    network_obstacles,
    place_obstacles,
    port_obstacles,
)
from tmi_ops.runbooks.plan import Obstacle, Plan
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops.store.manifest import StoredObject
from tmi_ops.store.objects import open_store
from tmi_ops_tests.recovery.point_in_time.pasts import a_base


def test_a_port_in_use_and_one_that_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for addresses in ("localhost", "*"):
            (obstacle,) = port_obstacles(port, addresses)
            assert f"Port {port}" in obstacle.what
            assert "--port" in obstacle.hint
    assert list(port_obstacles(port, "localhost")) == []


def test_an_address_to_listen_on_must_be_one_of_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert list(port_obstacles(port, "127.0.0.1, no.such.host.invalid")) != []
    (elsewhere,) = port_obstacles(port, "192.0.2.1")
    assert f"Port {port} of this machine is not available" in elsewhere.what
    assert list(port_obstacles(port, "*")) == []


@pytest.mark.parametrize(
    ("network", "is_one"),
    [("10.0.0.0/8", True), ("10.1.2.3/8", True), ("fd00::/8", True), ("10.0.0.1", False), ("all trust\n", False)],
)
def test_what_is_let_in_is_a_network(network: str, *, is_one: bool) -> None:
    assert [network in one.what or repr(network) in one.what for one in network_obstacles([network])] == (
        [] if is_one else [True]
    )


def test_files_that_tell_of_the_new_server_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "there.env").touch()
    assert list(file_obstacles([str(tmp_path / "there.env"), str(tmp_path / "new.env")])) == []
    found = file_obstacles([str(tmp_path), str(tmp_path / "absent" / "new.env")])
    assert [one.what for one in found] == [
        f"{tmp_path} is a directory.",
        f"There is no directory {tmp_path / 'absent'} for new.env.",
    ]


def test_without_the_key_of_what_is_encrypted_a_run_would_end_at_its_first_step(tmp_path: Path) -> None:
    sealed, plain = a_base("sealed", 1), a_base("plain", 1)
    stored = StoredObject(name="base", size=2, sha256="0" * 64, plain_size=1, plain_sha256="1" * 64, encrypted=True)
    sealed = sealed.model_copy(update={"objects": (stored,)})
    for identity, said in ((None, "no private key is configured"), (tmp_path / "gone", "cannot be read")):
        (obstacle,) = key_obstacles(identity, [plain, sealed])
        assert said in obstacle.what
        assert "TMI_OPS_AGE_IDENTITY_FILE" in obstacle.hint
    assert list(key_obstacles(None, [plain])) == []


def test_a_directory_that_holds_something_and_owners_that_cannot_be(tmp_path: Path) -> None:
    assert list(place_obstacles(tmp_path / "absent", None)) == []
    (tmp_path / "precious").touch()
    assert [one.what for one in place_obstacles(tmp_path, "nobody-of-that-name")] == [
        f"{tmp_path} is not empty.",
        "This machine has no account nobody-of-that-name.",
    ]
    (as_root,) = place_obstacles(tmp_path / "absent", "root")
    assert "refuses to run as root" in as_root.what


@pytest.fixture
def limited(database: PostgresSettings) -> Iterator[tuple[PostgresSettings, str]]:
    """A role that may log in, and the application's."""
    me, app = (f"{name}_{secrets.token_hex(3)}" for name in ("me", "app"))
    with connect(database) as connection:
        connection.execute(f"CREATE ROLE {me} LOGIN PASSWORD 'me'".encode())
        connection.execute(f"CREATE ROLE {app} LOGIN".encode())
    yield database.model_copy(update={"user": me, "password": SecretStr("me")}), app
    with connect(database) as connection:
        connection.execute(f"ALTER DATABASE {database.database} OWNER TO {database.user}".encode())
        connection.execute(f"DROP ROLE {app}".encode())
        connection.execute(f"DROP ROLE {me}".encode())


def test_every_right_that_is_missing_is_named_with_the_statement_that_gives_it(
    limited: tuple[PostgresSettings, str], database: PostgresSettings
) -> None:
    mine, app = limited

    def obstacles(*named: str, in_place: bool = True) -> list[Obstacle]:
        with connect(mine) as connection:
            return [*fence_obstacles(connection, mine.database, (app,), named, in_place=in_place)]

    found = obstacles("nobody_of_that_name")
    me = mine.user
    assert [one.what for one in found] == [
        "The server has no role nobody_of_that_name.",
        f"The role {me} is not allowed to alter the role {app}.",
        f"The role {me} is not allowed to end sessions of {app}.",
        f"The role {me} does not own the database {mine.database}, so it can neither close nor rename it.",
        f"The role {me} is not allowed to create databases.",
    ]
    with connect(database) as connection:
        for one in found[1:]:
            for statement in one.hint.partition("as a superuser: ")[2].partition("; or")[0].split(";"):
                connection.execute(statement.encode())
    assert obstacles(app) == [], "what the plan says helps"
    with connect(database) as connection:
        assert list(fence_obstacles(connection, database.database, (), (), in_place=True)) == []


def test_a_run_whose_plan_has_an_obstacle_is_not_begun(settings: Settings) -> None:
    obstacle = Obstacle(what="The disk is full.", hint="make room")
    plan = Plan(runbook="x", title="t", subject="s", steps=(), untouched="u", obstacles=(obstacle,))
    with pytest.raises(RecoveryError, match="not started: The disk is full") as refused:
        begin(settings, open_store(settings.store, settings.environment), plan, SilentReport())
    assert refused.value.hint == "make room"
    assert not (settings.home / "runbooks").exists()
