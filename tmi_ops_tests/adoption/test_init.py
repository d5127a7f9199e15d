"""From a server with nothing on it to proven, by one command; and away again."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.unprivileged import SERVER_USER, ServerIdentity, can_run
from tmi_ops.settings import StoreSettings
from tmi_ops_tests.certificates import make_authority, skip_without_tls
from tmi_ops_tests.commands import command
from tmi_ops_tests.entering import let_everybody_enter
from tmi_ops_tests.house import House, house
from tmi_ops_tests.postgres.test_tls import HOST, ONLY_TLS, install

pytestmark = pytest.mark.slow
ROLES = (
    "SELECT rolname, rolsuper, rolcreaterole, rolreplication, ARRAY(SELECT roleid::regrole::text FROM pg_auth_members "
    "WHERE member = r.oid) FROM pg_roles r WHERE rolname LIKE 'tmi%' ORDER BY 1"
)
PROGRAM = Path(sys.prefix) / "bin" / "tmi-ops"


@contextmanager
def server_of_tls_alone(programs: Programs, root: Path) -> Iterator[House]:
    """Nothing but encrypted connections get in, and its certificate is verified in full."""
    skip_without_tls(programs)
    authority = make_authority(root / "authority", "the owner's own CA")
    (root / "server").mkdir()
    with house(programs, root / "server") as built:
        install(authority.certify(HOST), built)
        (built.data / "pg_hba.conf").write_text(ONLY_TLS)
        built.address = built.address.model_copy(
            update={"host": HOST, "sslmode": "verify-full", "sslrootcert": str(authority.file)}
        )
        built.configure_files({"ssl": "on", "listen_addresses": HOST})
        yield built


def run(
    account: ServerIdentity | None, *words: str, env: Mapping[str, str], cwd: Path
) -> subprocess.CompletedProcess[str]:
    """`tmi-ops` as ourselves, or as another account and without any group of ours."""
    if account is None:
        return command(*words, env=env, cwd=cwd)
    return subprocess.run(
        account.command([PROGRAM, *words]),
        env=dict(env),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        **account.process_options(),
    )


def unprivileged(home: Path) -> ServerIdentity:
    """An account that may write in `home` alone. Where our interpreter is in a closed directory, as below /root, it
    may read what is closed to it, and still writes nowhere else."""
    for passes in (False, True):
        account = ServerIdentity(user=SERVER_USER, passes_closed_directories=passes)
        if can_run(account, Path(sys.executable), home):
            account.take_over(home)
            return account
    pytest.skip(f"{SERVER_USER} does not reach this installation")


def test_a_bare_server_is_proven_over_tls_by_one_command_which_goes_on_after_an_error_and_is_undone_by_another(
    programs: Programs, s3: StoreSettings, tmp_path: Path
) -> None:
    """By an account without rights. Root is asked to do so by `test_by_the_book`."""
    let_everybody_enter(tmp_path)
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    account = unprivileged(home) if os.geteuid() == 0 else None
    with server_of_tls_alone(programs, tmp_path) as server:
        address = server.address
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
            "POSTGRES_SSLMODE": "verify-full",
            "POSTGRES_SSLROOTCERT": str(address.sslrootcert),
            "TMI_OPS_PROFILE": "none",
            "TMI_OPS_S3_BUCKET": f"init-{os.getpid()}",
            "TMI_OPS_S3_ENDPOINT_URL": str(s3.endpoint_url),
            "TMI_OPS_S3_ACCESS_KEY_ID": s3.access_key_id.get_secret_value(),
        }
        words = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
        env = {"PATH": os.environ["PATH"], "TMI_OPS_S3_SECRET_ACCESS_KEY": s3.secret_access_key.get_secret_value()}
        wrong = run(account, "init", "--yes", "--quiet", *words, env={**env, "POSTGRES_PASSWORD": "wrong"}, cwd=home)
        assert wrong.returncode == 2
        assert "password authentication failed" in wrong.stderr
        password = address.password.get_secret_value()
        (home / ".env.development").unlink()
        unwritten = {"TMI_OPS_TIMEZONE": "UTC"}
        done = run(
            account,
            "init",
            "--yes",
            "--quiet",
            *words,
            env={**env, **unwritten, "POSTGRES_PASSWORD": password},
            cwd=home,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "is verified: 1 tables, 100 rows" in done.stdout
        assert "Protected and verified up to" in done.stdout
        assert "Only this shell sets TMI_OPS_TIMEZONE. Services need it in .env.development." in done.stdout
        with connect(address) as connection:
            assert connection.execute(ROLES).fetchall() == [
                ("tmi_backup", False, False, True, ["pg_read_all_data"]),
                ("tmi_monitor", False, False, False, ["pg_monitor"]),
            ]
        alone = {"PATH": os.environ["PATH"]}
        assert run(account, "status", env=alone, cwd=home).returncode == 0
        assert "✓ recovery" not in run(account, "keys", "show", env=alone, cwd=home).stderr
        again = run(account, "init", "--plan", env=alone, cwd=home)
        assert again.stdout.count("✓") == 10, again.stdout
        written = [home / ".tmi-ops" / "units" / f"tmi-ops-{kind}-development.service" for kind in ("wal", "heartbeat")]
        for unit in written:
            assert str(unit) in done.stdout
            assert password not in unit.read_text()
            assert f"User={pwd.getpwuid(home.stat().st_uid).pw_name}\n" in unit.read_text()
        assert ("sudo install" in done.stdout) is (home.stat().st_uid != 0)
        left = run(account, "uninit", "--yes", env=alone, cwd=home)
        assert left.returncode == 0, left.stderr
        with connect(address) as connection:
            assert connection.execute("SELECT count(*) FROM pg_replication_slots").fetchone() == (0,)
            assert connection.execute(ROLES).fetchall() == []
        assert "TMI_OPS_BACKUP" not in (home / ".env.development").read_text()
        assert not any(unit.exists() for unit in written)


def test_a_secret_on_the_command_line_is_refused_and_what_is_missing_is_named(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"]}
    shown = command("init", "--yes", "--set", "POSTGRES_PASSWORD=x", env=env, cwd=tmp_path)
    assert shown.returncode == 2
    assert "would show in the process list" in shown.stderr
    missing = command("init", "--yes", env=env, cwd=tmp_path)
    assert missing.returncode == 2
    assert "POSTGRES_DB (database name) is not set" in missing.stderr
    misspelt = command("init", "--yes", "--set", "POSTGRES_HOTS=x", env=env, cwd=tmp_path)
    assert "Did you mean POSTGRES_HOST?" in misspelt.stderr
    assert not list(tmp_path.iterdir())
