"""`tmi-ops status --all`, and several databases of one cluster on a real server."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tmi_ops.cli.status_all import Seen, as_facts, screen, worst_code
from tmi_ops.postgres.connections import connect
from tmi_ops.settings import PostgresSettings, Settings
from tmi_ops_tests.commands import command
from tmi_ops_tests.objectives.facts import NOW, ago, facts, reach
from tmi_ops_tests.objectives.statuses import a_status
from tmi_ops_tests.variables import variables_of

LATE = facts(verified=reach(ago(minutes=40)), newest=reach(ago(minutes=40)), receiver=None)


def shown(*seen: Seen) -> str:
    console = Console(width=80, no_color=True, highlight=False)
    with console.capture() as capture:
        console.print(screen(seen, NOW))
    return capture.get()


def test_each_has_a_line_within_eighty_columns_and_its_first_trouble_below() -> None:
    said = shown(
        Seen("production", a_status()),
        Seen("production/billing", a_status(LATE)),
        Seen("shop", None, "s3.secret, which tmi-ops.toml names for shop, cannot be read: no such file."),
    )
    lines = said.splitlines()
    assert max(map(len, lines)) <= 80
    assert re.match(r"✓ production  .* of 15 min .* of 30 min .* UTC", lines[1])
    assert re.match(r"✗ production/billing  40 min of 15 min", lines[2])
    assert re.match(r"\? shop +unknown", lines[3])
    assert "production:" not in said, "what is well has no trouble"
    assert "shop: s3.secret" in said


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        ([Seen("a", a_status()), Seen("b", a_status())], 0),
        ([Seen("a", a_status()), Seen("b", a_status(LATE))], 1),
        ([Seen("a", a_status(LATE)), Seen("b", None, "away"), Seen("c", a_status())], 2),
        ([Seen("a", replace(a_status(), database_problem="away"))], 2),
    ],
)
def test_the_exit_code_is_the_worst(seen: list[Seen], code: int) -> None:
    assert worst_code(seen) == code


def test_programs_are_told_of_one_that_could_not_be_looked_at() -> None:
    assert as_facts(Seen("shop", None, "away")) == {"name": "shop", "standing": "unknown", "problem": "away"}
    assert as_facts(Seen("a", a_status()))["standing"] == "met"


@pytest.mark.parametrize("word", ["init", "uninit"])
def test_a_database_beside_is_not_taken_in_or_out_without_its_cluster(tmp_path: Path, word: str) -> None:
    (tmp_path / "tmi-ops.toml").write_text("[environments.production.databases.billing]\n")
    ended = command("-e", "production/billing", word, env={"PATH": ""}, cwd=tmp_path)
    assert ended.returncode == 2
    assert "production/billing is a database in the cluster of production" in ended.stderr
    assert "tmi-ops -e production init" in ended.stderr


def fleet(settings: Settings, second: str) -> str:
    """The test's database, another one of its cluster, and an environment whose servers are not there."""
    postgres, store = settings.postgres, settings.store
    return f"""
[defaults]
TMI_OPS_PROFILE = "none"
TMI_OPS_RPO = "1h"
TMI_OPS_RTO = "2h"
TMI_OPS_S3_ENDPOINT_URL = "{store.endpoint_url}"
TMI_OPS_S3_BUCKET = "{store.bucket}"
TMI_OPS_S3_PREFIX = "{store.prefix}"
TMI_OPS_S3_ACCESS_KEY_ID_ENV = "S3_ID"
TMI_OPS_S3_SECRET_ACCESS_KEY_FILE = "s3.secret"
POSTGRES_USER = "{postgres.user}"
POSTGRES_PASSWORD_ENV = "PG_PASSWORD"

[environments.shop]
POSTGRES_HOST = "{postgres.host}"
POSTGRES_PORT = {postgres.port}
POSTGRES_DB = "{postgres.database}"

[environments.shop.databases.billing]
POSTGRES_DB = "{second}"

[environments.away]
POSTGRES_HOST = "127.0.0.1"
POSTGRES_PORT = 9
TMI_OPS_S3_ENDPOINT_URL = "http://127.0.0.1:9"
"""


@pytest.mark.slow
def test_two_databases_of_a_cluster_share_one_base_backup_and_have_their_own_dumps(
    settings: Settings, tmp_path: Path
) -> None:
    second = f"{settings.postgres.database}_billing"
    given = variables_of(settings)
    variables = {
        "PATH": given["PATH"],
        "S3_ID": given["TMI_OPS_S3_ACCESS_KEY_ID"],
        "PG_PASSWORD": given["POSTGRES_PASSWORD"],
        "TMI_OPS_HOME": str(tmp_path / "home"),
    }
    (tmp_path / "tmi-ops.toml").write_text(fleet(settings, second))
    (tmp_path / "s3.secret").write_text(given["TMI_OPS_S3_SECRET_ACCESS_KEY"])

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return command(*words, env=variables, cwd=tmp_path)

    def done(*words: str) -> str:
        ended = run(*words)
        assert ended.returncode == 0, f"{words}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    with connect(settings.postgres) as connection:
        connection.execute(f'CREATE DATABASE "{second}"')
    try:
        _fill(settings.postgres, "orders", 10)
        _fill(settings.postgres.model_copy(update={"database": second}), "invoices", 20)

        unchosen = run("backup", "logical")
        assert unchosen.returncode == 2
        assert "has 3 environments and databases: shop, shop/billing, away" in unchosen.stderr

        done("-e", "shop", "backup", "base", "--quiet")
        done("-e", "shop/billing", "backup", "logical", "--quiet")
        done("-e", "shop", "backup", "logical", "--quiet")
        for name, table, rows in (("shop", "orders", 10), ("shop/billing", "invoices", 20)):
            proof = json.loads(done("-e", name, "verify", "latest", "--json", "--quiet"))
            assert (proof["outcome"], proof["rows"]) == ("proven", rows), f"latest of {name} is its own: {table}"

        listed = json.loads(done("-e", "shop/billing", "backups", "--json"))
        assert sorted((one["kind"], one.get("database")) for one in listed) == [
            ("base", None),
            ("logical", settings.postgres.database),
            ("logical", second),
        ]
        both = done("-e", "shop", "backups")
        assert second in both, "with several databases each line says whose it is"

        looked = run("status", "--all", "--json")
        found = {one["name"]: one for one in json.loads(looked.stdout)}
        assert looked.returncode == 2, "one of them is away"
        assert list(found) == ["shop", "shop/billing", "away"]
        assert found["away"]["standing"] != "met"
        assert found["away"]["problems"]["database"]
        own, other = (found[name]["recoverable"]["proven"]["backup_id"] for name in ("shop", "shop/billing"))
        dumps = {one["backup_id"]: one["database"] for one in listed if one["kind"] == "logical"}
        assert (dumps[own], dumps[other]) == (settings.postgres.database, second)
        assert found["shop"]["standing"] == found["shop/billing"]["standing"]
        assert found["shop"]["logical_backups"] is None, "its RPO counts them"
        assert found["shop/billing"]["logical_backups"]["standing"] == "met"
        assert found["shop/billing"]["logical_backups"]["newest"] == other

        screen_shown = run("status", "--all").stdout
        assert [line.split()[1] for line in screen_shown.splitlines()[1:4]] == ["shop", "shop/billing", "away"]
    finally:
        with connect(settings.postgres) as connection:
            connection.execute(f'DROP DATABASE "{second}" WITH (FORCE)')


def _fill(postgres: PostgresSettings, table: str, rows: int) -> None:
    with connect(postgres) as connection:
        connection.execute(f"CREATE TABLE {table} AS SELECT g AS id FROM generate_series(1, {rows}) g")
