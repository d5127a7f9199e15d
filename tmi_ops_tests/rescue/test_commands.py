"""`tmi-ops recover find`, `diff` and `rows` on a cluster whose WAL is archived, after accidents of several kinds."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from tmi_ops.backup.base import back_up_base
from tmi_ops.backup.logical import back_up_logical
from tmi_ops.cache.connection import connected
from tmi_ops.cli.recover_rows import rows as recover_rows
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.programs import Programs
from tmi_ops.progress import SilentReport
from tmi_ops.rescue.finding import find_events
from tmi_ops.settings import RedisSettings, Settings, StoreSettings
from tmi_ops.store.objects import open_store
from tmi_ops_tests.archiving import archive_wal
from tmi_ops_tests.commands import command
from tmi_ops_tests.physical import physical_cluster, settings_for
from tmi_ops_tests.rescue.databases import SCHEMA, rows, run
from tmi_ops_tests.variables import variables_of

pytestmark = pytest.mark.slow

WHOLE = "before the accidents"
# The file of `late` is younger than those of the other tables, and it lost other rows than `early` before.
EMPTIED_AT_ONCE = (
    "CREATE TABLE early (n integer PRIMARY KEY); CREATE TABLE late (n integer PRIMARY KEY, t text); "
    "CREATE TABLE passing (n serial PRIMARY KEY)",
    "INSERT INTO early SELECT generate_series(1, 9); INSERT INTO late SELECT generate_series(1, 9)",
    "VACUUM FULL late",
    "DELETE FROM early WHERE n <= 2",
    "DELETE FROM late WHERE n <= 5",
    "BEGIN; TRUNCATE late; DROP TABLE passing; CREATE TABLE passing (n integer); TRUNCATE early; COMMIT",
    "INSERT INTO late VALUES (1); DELETE FROM late",
)
# Nothing is left of their rows, so that they differ in nothing. Two partitions lose rows, and a third one goes; `gone`
# goes with all that it had.
PARTITIONED = (
    "CREATE TABLE days (day integer, what text) PARTITION BY RANGE (day);"
    "CREATE TABLE day1 PARTITION OF days FOR VALUES FROM (1) TO (2);"
    "CREATE TABLE later PARTITION OF days FOR VALUES FROM (2) TO (9) PARTITION BY RANGE (day);"
    "CREATE TABLE day2 PARTITION OF later FOR VALUES FROM (2) TO (3);"
    "CREATE TABLE day3 PARTITION OF later FOR VALUES FROM (3) TO (4);"
    "CREATE TABLE gone (day integer) PARTITION BY LIST (day);"
    "CREATE TABLE gone1 PARTITION OF gone FOR VALUES IN (1); CREATE TABLE gone2 PARTITION OF gone DEFAULT",
    "INSERT INTO days SELECT i % 3 + 1, i FROM generate_series(1, 12) i; INSERT INTO gone SELECT generate_series(1, 5)",
    "DELETE FROM days WHERE day < 3",
    "UPDATE days SET what = '' WHERE day = 3",
    "DROP TABLE day3",
    "ALTER TABLE days DETACH PARTITION day1",
    "DELETE FROM gone",
)


@dataclass(frozen=True)
class Accident:
    """A cluster after its accidents; `then` is what its tables held before."""

    settings: Settings
    then: dict[str, list[dict[str, object]]]
    backup_id: str

    def call(self, place: Path, *words: str, columns: int = 200) -> subprocess.CompletedProcess[str]:
        env = {**variables_of(self.settings), **self._redis, "COLUMNS": str(columns), "TZ": "UTC"}
        return command("recover", *words, env=env, cwd=place)

    @property
    def _redis(self) -> dict[str, str]:
        redis = self.settings.redis
        assert redis.password is not None
        return {
            "REDIS_HOST": redis.host,
            "REDIS_PORT": str(redis.port),
            "REDIS_PASSWORD": redis.password.get_secret_value(),
        }

    def is_as_then(self, table: str) -> bool:
        return rows(self.settings.postgres, table) == self.then[table]


@pytest.fixture(scope="module")
def accident(
    tmp_path_factory: pytest.TempPathFactory,
    programs: Programs,
    s3: StoreSettings,
    shared_bucket: str,
    redis_server: RedisSettings,
) -> Iterator[Accident]:
    root = tmp_path_factory.mktemp("accident")
    with physical_cluster(programs, root, {"wal_keep_size": "512MB"}) as cluster:
        store = s3.model_copy(update={"bucket": shared_bucket, "prefix": f"rescue-{secrets.token_hex(6)}"})
        settings = settings_for(cluster.address, store, root / "home").model_copy(update={"redis": redis_server})
        opened = open_store(settings.store, settings.environment)
        back_up_base(settings, opened, SilentReport())
        run(cluster.address, SCHEMA)
        with connect(cluster.address) as connection:
            connection.execute("SELECT pg_create_restore_point(%s)", [WHOLE])
        manifest = back_up_logical(settings, opened, "custom", SilentReport())
        then = {table: rows(cluster.address, table) for table in ("models", "parts", "lines", "people", "history")}
        for statement in (
            *EMPTIED_AT_ONCE,
            *PARTITIONED,
            "BEGIN; DELETE FROM parts WHERE n <= 9; SAVEPOINT a; DELETE FROM parts WHERE n = 10; COMMIT",
            "BEGIN; DELETE FROM parts; ROLLBACK",
            "UPDATE people SET name = name || '!' WHERE id <= 4",
            "TRUNCATE lines",
            "INSERT INTO lines VALUES ('since', 0)",
            "DELETE FROM lines",
            "DROP TABLE models CASCADE",
            "ALTER TABLE doors DROP COLUMN room; INSERT INTO doors VALUES (7)",
            "DROP TABLE gone",
        ):
            run(cluster.address, statement)
        archive_wal(cluster, opened, close_segment=False)
        yield Accident(settings, then, manifest.backup_id)


def events(found: subprocess.CompletedProcess[str]) -> list[tuple[str, int]]:
    return [(event["kind"], event["rows"]) for event in json.loads(found.stdout)["events"]]


def test_the_commits_that_took_rows_are_found_in_the_wal(accident: Accident, tmp_path: Path) -> None:
    parts = accident.call(tmp_path, "find", "--table", "parts", "--from", "1h ago", "--json")
    assert parts.returncode == 0, parts.stderr
    # A foreign key of its own, or to it, fell with the table at the other end.
    assert events(parts) == [("deleted rows", 10), ("definition altered", 0)]
    people = accident.call(tmp_path, "find", "--table", "public.people", "--from", "1h ago", "--json")
    assert events(people) == [("changed rows", 4), ("definition altered", 0)]
    lines = accident.call(tmp_path, "find", "--table", "lines", "--from", "1h ago", "--quiet")
    assert "emptied or rewritten" in lines.stdout
    assert "deleted rows" in lines.stdout
    doors = accident.call(tmp_path, "find", "--table", "doors", "--from", "1h ago", "--json")
    assert events(doors) == [("definition altered", 0)]
    nothing = accident.call(tmp_path, "find", "--table", "history", "--from", "1h ago", "--quiet")
    assert nothing.returncode == 1
    assert "Found no commit that changed history" in nothing.stdout


def test_without_a_time_the_archive_is_searched_from_its_end_also_for_a_table_younger_than_every_backup(
    accident: Accident, tmp_path: Path
) -> None:
    dropped = accident.call(tmp_path, "find", "--table", "models", "--json")
    assert dropped.returncode == 0, dropped.stderr
    assert events(dropped)[-1] == ("dropped", 0)
    assert not json.loads(dropped.stdout)["exists"]
    shown = accident.call(tmp_path, "find", "--table", "models", "--quiet", columns=80)
    assert "The table does not exist now." in shown.stdout
    assert events(accident.call(tmp_path, "find", "--table", "parts", "--json"))[0] == ("deleted rows", 10)
    never = accident.call(tmp_path, "find", "--table", "nonsense", "--quiet")
    assert never.returncode == 2
    assert "TMI-3140" in never.stderr


def test_of_a_partitioned_table_all_partitions_are_followed_and_each_that_went_is_named_or_told(
    accident: Accident, tmp_path: Path
) -> None:
    days = accident.call(tmp_path, "find", "--table", "days", "--json")
    assert days.returncode == 0, days.stderr
    detached = ("partition dropped or detached", 0)
    assert events(days) == [("deleted rows", 8), ("changed rows", 4), ("dropped", 0), detached]
    in_each = [event["partitions"] for event in json.loads(days.stdout)["events"]]
    assert in_each == [["public.day1", "public.day2"], ["public.day3"], ["public.day3"], ["public.day1"]]
    gone = accident.call(tmp_path, "find", "--table", "gone", "--quiet")
    assert gone.returncode == 0, gone.stderr
    assert re.search(r"deleted rows +5 .*public.gone1, public.gone2", gone.stdout)
    assert re.search(r"dropped .*public.gone1, public.gone2", gone.stdout)


def test_deletions_before_a_commit_that_emptied_several_tables_are_counted_for_the_right_one(
    accident: Accident,
) -> None:
    store = open_store(accident.settings.store, accident.settings.environment)
    now = datetime.now(UTC)

    def events_of(table: str) -> list[tuple[str, int]]:
        found = find_events(accident.settings, store, table, now - timedelta(hours=1), now, SilentReport())
        assert found.blind == ()
        return [(event.kind, event.rows) for event in found.events]

    assert events_of("early") == [("deleted rows", 2), ("emptied or rewritten", 0)]
    emptied = ("emptied or rewritten", 0)
    assert events_of("late") == [emptied, ("deleted rows", 5), emptied, ("deleted rows", 1)]


def test_what_is_found_is_looked_at_and_brought_back(accident: Accident, tmp_path: Path) -> None:
    """The whole night: find, diff, dry run, deed; the cache is another test's."""
    found = accident.call(tmp_path, "find", "--table", "parts", "--from", "1h ago", "--json")
    (event, _) = json.loads(found.stdout)["events"]
    before = ("--exclusive", "--to-lsn", event["before_lsn"], "--quiet")
    differs = accident.call(tmp_path, "diff", *before, "--table", "people", "--rows", "2", columns=100)
    assert differs.returncode == 1, differs.stderr
    assert "name 4" in differs.stdout
    assert "name: person 1! was person 1" in differs.stdout
    assert max(map(len, differs.stdout.splitlines())) <= 100
    whole = accident.call(tmp_path, "diff", *before, "--json")
    states = [json.loads(line)["state"] for line in whole.stdout.splitlines()]
    # 30 models, 10 parts and 10 lines are gone, 4 people have another name, one door is new.
    assert (states.count("deleted"), states.count("changed"), states.count("inserted")) == (50, 4, 1)

    asked = ("rows", *before, "--table", "parts", "--where", "n <= 10")
    dry = accident.call(tmp_path, *asked, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "models (recreated)" in dry.stdout
    assert "30 rows of models are restored because" in dry.stdout
    assert "Nothing was changed." in dry.stdout
    assert not accident.is_as_then("parts")
    with connected(accident.settings.redis) as cache:
        cache.set("cache:threat_model:1", "a stale copy")
        cache.set("blacklist:token:1", "revoked")
    done = accident.call(tmp_path, *asked, "--yes")
    assert done.returncode == 0, done.stderr
    assert "read back and equal to the past in every column" in done.stdout
    assert "1 stale copies dropped" in done.stdout
    with connected(accident.settings.redis) as cache:
        assert cache.keys() == [b"blacklist:token:1"]
        cache.delete("blacklist:token:1")
    assert accident.is_as_then("parts")

    unsolved = accident.call(tmp_path, "rows", *before, "--table", "people", "--yes")
    assert unsolved.returncode == 1
    assert "4 rows of people: other content now; unresolved" in unsolved.stdout
    values = ("rows", *before, "--table", "people", "--set-column", "name", "--yes")
    taken = accident.call(tmp_path, *values, columns=80)
    assert taken.returncode == 0, taken.stderr
    assert "update name of 4 rows in 1 table" in " ".join(taken.stdout.split())
    assert accident.is_as_then("people")
    assert accident.is_as_then("models")


def test_a_logical_backup_is_a_past_where_there_is_no_wal(accident: Accident, tmp_path: Path) -> None:
    done = accident.call(tmp_path, "rows", "--backup", accident.backup_id, "--table", "lines", "--yes", "--quiet")
    assert done.returncode == 0, done.stderr
    assert accident.is_as_then("lines")
    again = accident.call(tmp_path, "rows", "--backup", "latest", "--table", "lines", "--yes", "--quiet")
    assert again.returncode == 0
    assert "All rows are as they were; there is nothing to do." in again.stdout


def test_a_dropped_column_comes_back_by_the_runbook_and_fits_a_narrow_terminal(
    accident: Accident, tmp_path: Path
) -> None:
    asked = ("rows", "--to-name", WHOLE, "--table", "doors", "--column", "room", "--no-cache", "--yes", "--quiet")
    done = accident.call(tmp_path, *asked, columns=80)
    assert done.returncode == 0, done.stderr
    assert max(len(line) for line in done.stdout.splitlines() if "Evidence" not in line and "s3://" not in line) <= 80
    said = " ".join(done.stdout.split())
    assert "6 rows of doors get their past values 1 other rows get NULL" in said
    assert "restored the foreign key doors_room_fkey" in said
    assert rows(accident.settings.postgres, "(SELECT id, room FROM doors)") == [
        *({"id": number, "room": number} for number in range(1, 7)),
        {"id": 7, "room": None},
    ]
    assert "1 of 1" in accident.call(tmp_path, "list").stdout


def test_a_table_that_never_was_is_exit_code_2(accident: Accident, tmp_path: Path) -> None:
    done = accident.call(tmp_path, "rows", "--to-name", WHOLE, "--table", "peopel", "--quiet")
    assert done.returncode == 2
    assert "There was no table peopel at that moment" in done.stderr
    assert "Did you mean people?" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--table", "people"), "give one of --to-time"),
        (("--to-time", "1h ago", "--backup", "x", "--table", "people"), "give one of --to-time"),
        (("--to-name", WHOLE), "say what to restore"),
        (("--to-name", WHOLE, "--table", "a", "--table", "b", "--where", "true"), "and one --table"),
        (("--to-name", WHOLE, "--table", "people", "--json"), "--json needs --dry-run"),
        (("--to-name", WHOLE, "--column", "boss"), "--column needs exactly one --table"),
        (("--to-name", WHOLE, "--table", "a", "--where", "true", "--key", "1"), "either --where or --key"),
        (
            ("--to-name", WHOLE, "--table", "a", "--table", "b", "--set-column", "c"),
            "--set-column needs exactly one --table",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_opened(words: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(recover_rows, words)
    assert done.exit_code == 2
    assert said in done.output


def test_nothing_of_the_past_stays_behind(accident: Accident) -> None:
    assert [path.name for path in (accident.settings.home / "scratch").iterdir()] == []
