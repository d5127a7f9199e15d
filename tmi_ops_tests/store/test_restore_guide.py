"""RESTORE.md does what it says: its own commands, run by a shell that knows stock tools alone."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest
from pyrage import x25519

from tmi_ops.backup.base import back_up_base
from tmi_ops.backup.logical import back_up_logical
from tmi_ops.postgres.cluster import RunningCluster, free_port
from tmi_ops.postgres.connections import connect, libpq_environment
from tmi_ops.postgres.programs import Programs
from tmi_ops.postgres.unprivileged import ServerIdentity, server_identity
from tmi_ops.postgres.wal_files import format_lsn
from tmi_ops.progress import SilentReport
from tmi_ops.settings import PostgresSettings, Settings, StoreSettings
from tmi_ops.store.objects import open_store
from tmi_ops.store.restore_guide import GUIDE_KEY
from tmi_ops_tests.archiving import archive_wal
from tmi_ops_tests.entering import let_everybody_enter
from tmi_ops_tests.physical import FIRST_TO_SUMMARIZE, make_place, physical_cluster, settings_for
from tmi_ops_tests.recovery.point_in_time.conftest import KEEPS_WAL, Moment, make_ledger, own_store, write

pytestmark = pytest.mark.slow

_AGE = """#!{python}
import sys, pyrage
from pyrage import x25519
words = sys.argv[1:]
key = next(line for line in open(words[words.index("--identity") + 1]) if line.startswith("AGE-SECRET-KEY-")).strip()
plain = pyrage.decrypt(open(words[-1], "rb").read(), [x25519.Identity.from_str(key)])
out = open(words[words.index("--output") + 1], "wb") if "--output" in words else sys.stdout.buffer
out.write(plain)
"""
_ZSTD = """#!{python}
import os, sys, zstandard
words = [word for word in sys.argv[1:] if not word.startswith("--")]
out = open(words[words.index("-o") + 1], "wb") if "-o" in words else sys.stdout.buffer
source = words[-1] if words and words[-1] != "-o" else None
zstandard.ZstdDecompressor().copy_stream(open(source, "rb") if source else sys.stdin.buffer, out)
if "--rm" in sys.argv:
    os.unlink(source)
"""


def steps(guide: str, *numbers: int) -> str:
    """The commands of these steps, in their order."""
    parts = {int(part.split(".", 1)[0]): part for part in guide.split("\n## ")[1:]}
    return "\n".join(block for number in numbers for block in re.findall(r"```sh\n(.*?)```", parts[number], re.DOTALL))


class Hands:
    """A person with a shell, in an empty directory, without tmi_ops."""

    def __init__(self, directory: Path, identity: ServerIdentity, programs: Programs, store: StoreSettings) -> None:
        self.directory, self._identity, self._store = directory, identity, store
        tools = directory / "tools"
        tools.mkdir()
        shutil_which = shutil.which("aws", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        assert shutil_which is not None
        for program in (*programs.bindir.iterdir(), Path(shutil_which)):
            (tools / program.name).symlink_to(program)
        for name, text in (("age", _AGE), ("zstd", _ZSTD)):
            if shutil.which(name) is None:
                (tools / name).write_text(text.format(python=sys.executable))
                (tools / name).chmod(0o755)
        identity.take_over(directory)

    def follow(self, commands: str, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run the commands as they stand; each must succeed."""
        store = self._store
        assert store.access_key_id is not None
        assert store.secret_access_key is not None
        done = subprocess.run(
            self._identity.command(["bash", "-euo", "pipefail", "-c", commands]),
            cwd=self.directory,
            env={
                "PATH": f"{self.directory / 'tools'}:/usr/local/bin:/usr/bin:/bin",
                "HOME": str(self.directory),
                "LC_ALL": "C.UTF-8",
                "AWS_ACCESS_KEY_ID": store.access_key_id.get_secret_value(),
                "AWS_SECRET_ACCESS_KEY": store.secret_access_key.get_secret_value(),
                **variables,
            },
            capture_output=True,
            text=True,
            check=False,
            **self._identity.process_options(),
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self._log()}"
        return done

    def _log(self) -> str:
        log = self.directory / "server.log"
        return log.read_text(errors="replace") if log.exists() else ""


@pytest.fixture
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="tmi-ops-hands-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def hands(place: Path, programs: Programs, s3: StoreSettings) -> Hands:
    aws = shutil.which("aws", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert aws is not None
    return Hands(place, server_identity(Path(aws), place), programs, s3)


@pytest.fixture(params=[False, True], ids=["unencrypted", "encrypted"])
def store_settings(request: pytest.FixtureRequest, s3: StoreSettings, shared_bucket: str, place: Path) -> StoreSettings:
    own = own_store(s3, shared_bucket)
    if not request.param:
        return own
    identity = x25519.Identity.generate()
    key = place / "key.txt"
    key.write_text(f"{identity}\n")
    return own.model_copy(update={"age_recipients": (str(identity.to_public()),), "age_identity_file": key})


def guide_of(settings: Settings) -> str:
    return open_store(settings.store, settings.environment).get_bytes(GUIDE_KEY).decode()


def test_a_database_comes_back_by_steps_1_to_7(
    server: PostgresSettings, store_settings: StoreSettings, hands: Hands, place: Path
) -> None:
    name, restored = f"by_hand_{secrets.token_hex(4)}", "tmi_restore"
    with connect(server) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        connection.execute(f"DROP DATABASE IF EXISTS {restored}")
    address = server.model_copy(update={"database": name})
    try:
        with connect(address) as connection:
            connection.execute("CREATE TABLE threats AS SELECT i, md5(i::text) AS name FROM generate_series(1, 500) i")
        settings = settings_for(address, store_settings, place / "home")
        manifest = back_up_logical(settings, open_store(store_settings, "development"), "custom", SilentReport())
        guide = guide_of(settings)
        commands = steps(guide, 1, 2, 3, 4, 5, 6, 7)
        if not manifest.encrypted:
            commands = steps(guide, 1, 2, 3, 5, 6, 7)
        # Of step 6 there is one command for each format.
        others = [line for line in steps(guide, 6).splitlines() if line and "database.dump" not in line]
        commands = "\n".join(line for line in commands.splitlines() if line not in others)
        hands.follow(
            commands, {**libpq_environment(server), "BACKUP": manifest.backup_id, "AGE_KEY": f"{place}/key.txt"}
        )
        with connect(server, restored) as connection:
            assert connection.execute("SELECT count(*) FROM threats").fetchone() == (500,)
    finally:
        with connect(server) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            connection.execute(f"DROP DATABASE IF EXISTS {restored} WITH (FORCE)")


def recovered_rows(place: Path, port: int, role: str) -> int:
    with psycopg.connect(host=str(place), port=port, user=role, dbname="postgres") as connection:
        row = connection.execute("SELECT count(*) FROM ledger").fetchone()
    assert row is not None
    return int(row[0])


def by_hand(hands: Hands, settings: Settings, base: str, target: str, cluster: RunningCluster) -> int:
    """Follow steps 1 and 8 to 13 and count the rows of the ledger; the server is stopped afterwards."""
    place, port, role = hands.directory, free_port(), cluster.address.user
    guide = guide_of(settings)
    # What step 12 asks a person to look at: here, where the server listens and whom it lets in.
    own = (
        f"printf \"port = {port}\\nlisten_addresses = ''\\nunix_socket_directories = '{place}'\\n\""
        ' >> "$DATA/postgresql.auto.conf"\necho "local all all trust" > "$DATA/pg_hba.conf"\n'
    )
    commands = "\n".join([steps(guide, 1, 8, 9, 10, 11, 12), own, steps(guide, 13)])
    variables = {
        "BASE": base,
        "TARGET": target,
        "AGE_KEY": f"{place}/key.txt",
        "PGHOST": str(place),
        "PGPORT": str(port),
    }
    try:
        done = hands.follow(commands, {**variables, "PGUSER": role})
        assert "is whole" in done.stdout
        return recovered_rows(place, port, role)
    finally:
        hands.follow('pg_ctl --pgdata="$PWD/data" --mode=fast --wait stop || true', variables)


def test_a_cluster_comes_back_whole_or_to_a_moment_by_steps_8_to_13(
    programs: Programs, store_settings: StoreSettings, hands: Hands, place: Path, tmp_path: Path
) -> None:
    let_everybody_enter(tmp_path)
    with physical_cluster(programs, tmp_path, KEEPS_WAL) as cluster:
        settings = settings_for(cluster.address, store_settings, tmp_path / "home")
        store = open_store(settings.store, settings.environment)
        make_ledger(cluster.address)
        location = make_place(tmp_path / "space", cluster)
        with connect(cluster.address) as connection:
            connection.execute(f"CREATE TABLESPACE space LOCATION '{location}'")
            connection.execute("CREATE TABLE apart (i int) TABLESPACE space")
            connection.execute("INSERT INTO apart SELECT generate_series(1, 1000)")
        full = back_up_base(settings, store, SilentReport())
        early = write(cluster.address)
        incremental = back_up_base(settings, store, SilentReport(), incremental=True)
        middle: Moment = write(cluster.address)
        last = write(cluster.address)
        archive_wal(cluster, store, close_segment=False)
        assert incremental.format == ("incremental" if programs.major >= FIRST_TO_SUMMARIZE else "full")
        assert by_hand(hands, settings, incremental.backup_id, "", cluster) == last.rows
        start_again(place)
        target = f"recovery_target_time = '{early.time.isoformat()}'"
        assert by_hand(hands, settings, full.backup_id, target, cluster) == early.rows
        start_again(place)
        target = f"recovery_target_lsn = '{format_lsn(middle.lsn)}'"
        assert by_hand(hands, settings, incremental.backup_id, target, cluster) == middle.rows
        (link,) = (place / "data" / "pg_tblspc").iterdir()
        assert link.resolve().is_relative_to(place)


def start_again(place: Path) -> None:
    for path in place.iterdir():
        if path.name in ("data", "files", "stored", "tablespaces", "wal"):
            shutil.rmtree(path)
        elif path.name not in ("tools", "key.txt"):
            path.unlink()
