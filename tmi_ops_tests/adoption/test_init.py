"""From a server with nothing on it to proven, by one command; and away again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.settings import StoreSettings
from tmi_ops_tests.commands import command
from tmi_ops_tests.physical import physical_cluster

pytestmark = pytest.mark.slow


def test_a_bare_server_is_proven_by_one_command_which_goes_on_after_an_error_and_is_undone_by_another(
    programs: Programs, s3: StoreSettings, tmp_path: Path
) -> None:
    with physical_cluster(programs, tmp_path / "server") as cluster:
        address, home = cluster.address, tmp_path / "home"
        home.mkdir()
        with connect(address) as connection:
            connection.execute("CREATE TABLE orders AS SELECT generate_series(1, 100) AS id")
        assert address.password
        assert s3.secret_access_key
        assert s3.access_key_id
        given = {
            "POSTGRES_HOST": address.host,
            "POSTGRES_PORT": str(address.port),
            "POSTGRES_DB": address.database,
            "POSTGRES_USER": address.user,
            "POSTGRES_SSLMODE": "disable",
            "TMI_OPS_PROFILE": "none",
            "TMI_OPS_S3_BUCKET": f"init-{os.getpid()}",
            "TMI_OPS_S3_ENDPOINT_URL": str(s3.endpoint_url),
            "TMI_OPS_S3_ACCESS_KEY_ID": s3.access_key_id.get_secret_value(),
        }
        words = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
        env = {"PATH": os.environ["PATH"], "TMI_OPS_S3_SECRET_ACCESS_KEY": s3.secret_access_key.get_secret_value()}
        wrong = command("init", "--yes", "--quiet", *words, env={**env, "POSTGRES_PASSWORD": "wrong"}, cwd=home)
        assert wrong.returncode == 2
        assert "password authentication failed" in wrong.stderr
        password = address.password.get_secret_value()
        (home / ".env.development").write_text("")
        done = command("init", "--yes", "--quiet", *words, env={**env, "POSTGRES_PASSWORD": password}, cwd=home)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "is proven: 1 tables, 100 rows" in done.stdout
        assert "Protected, and proven up to" in done.stdout
        alone = {"PATH": os.environ["PATH"]}
        assert command("status", env=alone, cwd=home).returncode == 0
        assert "✓ recovery" not in command("keys", "show", env=alone, cwd=home).stderr
        again = command("init", "--plan", env=alone, cwd=home)
        assert again.stdout.count("✓") == 9, again.stdout
        written = [home / ".tmi-ops" / "units" / f"tmi-ops-{kind}-development.service" for kind in ("wal", "heartbeat")]
        for unit in written:
            assert str(unit) in done.stdout
            assert password not in unit.read_text()
        left = command("uninit", "--yes", env=alone, cwd=home)
        assert left.returncode == 0, left.stderr
        with connect(address) as connection:
            assert connection.execute("SELECT count(*) FROM pg_replication_slots").fetchone() == (0,)
        assert not any(unit.exists() for unit in written)


def test_a_secret_on_the_command_line_is_refused_and_what_is_missing_is_named(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"]}
    shown = command("init", "--yes", "--set", "POSTGRES_PASSWORD=x", env=env, cwd=tmp_path)
    assert shown.returncode == 2
    assert "would show in the process list" in shown.stderr
    missing = command("init", "--yes", env=env, cwd=tmp_path)
    assert missing.returncode == 2
    assert "POSTGRES_DB is not known" in missing.stderr
    misspelt = command("init", "--yes", "--set", "POSTGRES_HOTS=x", env=env, cwd=tmp_path)
    assert "Did you mean POSTGRES_HOST?" in misspelt.stderr
    assert not list(tmp_path.iterdir())
