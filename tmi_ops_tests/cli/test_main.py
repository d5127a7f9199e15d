from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tmi_ops.cli.main import SECTIONS, tmi_ops
from tmi_ops_tests.commands import command

COMMANDS = [name for section in SECTIONS.values() for name in section]


def _run(directory: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return command(*words, env={"PATH": os.environ["PATH"], **variables}, cwd=directory)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_help_names_exists_and_explains_itself(name: str) -> None:
    command = tmi_ops.get_command(click.Context(tmi_ops), name)
    assert command is not None
    assert command.name == name
    assert command.help


def test_no_command_imports_dagster(tmp_path: Path) -> None:
    load_all = (
        "import sys, click; from tmi_ops.cli.main import SECTIONS, tmi_ops\n"
        "[tmi_ops.get_command(click.Context(tmi_ops), name) for section in SECTIONS.values() for name in section]\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0].startswith('dagster')))"
    )
    done = subprocess.run([sys.executable, "-c", load_all], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_loads_no_command(tmp_path: Path) -> None:
    heavy = "('psycopg', 'sqlalchemy', 'boto3', 'botocore', 'alembic', 'rich', 'pydantic')"
    show_help = (
        "import sys\nfrom tmi_ops.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit as done: assert done.code == 0\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", show_help], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_an_unknown_environment_is_an_error_with_a_next_step_and_no_traceback(tmp_path: Path) -> None:
    done = _run(tmp_path, "backups", TMI_ENV="prodution")
    assert done.returncode == 2
    assert "unknown environment" in done.stderr
    assert "HINT:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_store_that_is_not_configured_says_what_to_set(tmp_path: Path) -> None:
    done = _run(tmp_path, "backup", "logical")
    assert done.returncode == 2
    assert "TMI_OPS_S3_BUCKET" in done.stderr


def test_an_unreachable_endpoint_is_an_error_within_seconds(tmp_path: Path) -> None:
    done = _run(
        tmp_path, "backups",
        TMI_OPS_S3_BUCKET="backups", TMI_OPS_S3_ENDPOINT_URL="http://127.0.0.1:9",
        TMI_OPS_S3_ACCESS_KEY_ID="key", TMI_OPS_S3_SECRET_ACCESS_KEY="hunter2",
    )  # fmt: skip
    assert done.returncode == 2
    assert "127.0.0.1:9" in done.stderr
    assert "hunter2" not in done.stderr


def test_settings_shows_no_secret(tmp_path: Path) -> None:
    done = _run(tmp_path, "settings", POSTGRES_PASSWORD="hunter2", REDIS_PASSWORD="hunter2")
    assert done.returncode == 0
    assert "postgres@localhost:5432/tmi" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_the_addresses_of_a_stack_that_is_down_are_not_to_be_had(tmp_path: Path) -> None:
    done = _run(tmp_path, "stack", "env")
    assert (done.returncode, done.stdout) == (2, "")
    assert "HINT: Run: tmi-ops up" in done.stderr


def test_a_word_that_is_no_command_is_refused(tmp_path: Path) -> None:
    done = _run(tmp_path, "bakcup")
    assert done.returncode == 2
    assert "No such command: 'bakcup'. Did you mean backup" in done.stderr


def test_the_demo_is_refused_outside_development_before_anything_starts(tmp_path: Path) -> None:
    done = _run(tmp_path, "demo", TMI_ENV="production", POSTGRES_SSLMODE="require")
    assert done.returncode == 2
    assert "The demo runs in development only, and TMI_ENV is production" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_demo_is_refused_where_a_database_of_the_user_is_named_before_anything_starts(tmp_path: Path) -> None:
    done = _run(tmp_path, "demo", POSTGRES_HOST="db.example.org")
    assert done.returncode == 2
    assert "Unset POSTGRES_HOST" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_misspelt_variable_is_named_and_the_command_goes_on(tmp_path: Path) -> None:
    (tmp_path / ".env.dev").write_text("TMI_OPS_S3_BUKET=backups\n")
    done = _run(tmp_path, "settings", TMI_OPS_RETIAN="30d")
    assert done.returncode == 0
    assert "TMI_OPS_RETIAN is not a setting and is ignored. Did you mean TMI_OPS_RETAIN?" in done.stderr
    assert "Did you mean TMI_OPS_S3_BUCKET?" in done.stderr
