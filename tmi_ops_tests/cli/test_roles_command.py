"""`tmi-ops roles`, as a person or a script runs it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tmi_ops.access.declared import RoleKind
from tmi_ops.access.passwords import password_file
from tmi_ops.cli.main import main
from tmi_ops.settings import PostgresSettings
from tmi_ops_tests.access.conftest import Site, may, new_site
from tmi_ops_tests.variables import postgres_variables

Command = Callable[..., tuple[int, str]]
FROM_ENVIRONMENT = "given-by-the-environment"


@pytest.fixture
def site(database: PostgresSettings, tmp_path: Path) -> Iterator[Site]:
    with new_site(database, password_file(tmp_path, "development")) as site:
        yield site


@pytest.fixture
def tmi_ops(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command line in this process; the exit code, and everything it printed."""

    def run(*arguments: str) -> tuple[int, str]:
        environment = {
            "TMI_ENV": "development",
            **postgres_variables(site.admin),
            "TMI_OPS_HOME": str(tmp_path),
            **site.variables,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["roles", *arguments])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out + printed.err

    return run


def test_plan_apply_and_check_agree_and_show_no_password(site: Site, tmi_ops: Command) -> None:
    site.variables["TMI_OPS_ROLE_PASSWORD_APP"] = FROM_ENVIRONMENT
    planned = tmi_ops("plan")
    checked = tmi_ops("check")
    applied = tmi_ops("apply", "--yes")
    assert (planned[0], checked[0], applied[0]) == (1, 1, 0)
    app = site.name(RoleKind.APP)
    assert f"CREATE ROLE {app} LOGIN;" in planned[1]
    assert f"{app}: the role that TMI itself uses to read and write rows is missing" in checked[1]
    assert f"Generated passwords are in {site.file}" in applied[1]
    assert (tmi_ops("plan")[0], tmi_ops("check")[0]) == (0, 0)
    secrets = [FROM_ENVIRONMENT]
    for kind in RoleKind:
        password = site.as_role(kind).password
        assert password is not None
        secrets.append(password.get_secret_value())
    for secret in secrets:
        assert all(secret not in printed for _, printed in (planned, checked, applied))


def test_apply_asks_first_and_does_nothing_without_a_yes(
    site: Site, tmi_ops: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda prompt="": asked.append(prompt) or "n")
    code, _ = tmi_ops("apply")
    assert (code, len(asked)) == (130, 1)
    assert site.sql("SELECT FROM pg_roles WHERE rolname = '{app}'") == []
    assert not site.file.exists()
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _prompt="": "y")
    assert tmi_ops("apply")[0] == 0
    assert may(site.as_role(RoleKind.APP), "SELECT * FROM threats")


@pytest.mark.slow
def test_json_says_what_was_done_and_what_is_left_and_never_asks(site: Site, tmi_ops: Command) -> None:
    code, printed = tmi_ops("apply", "--json")
    assert (code, "--json needs --yes" in printed) == (2, True)
    code, printed = tmi_ops("apply", "--yes", "--json")
    done = json.loads(printed[printed.index("{") : printed.rindex("}") + 1])
    assert (code, done["generated_passwords"]["file"]) == (0, str(site.file))
    assert set(done["generated_passwords"]["roles"]) == {kind.value for kind in RoleKind}
    assert done["applied"] == len(done["statements"]) > 20
    site.sql("GRANT TRUNCATE ON threats TO {app}")
    code, printed = tmi_ops("check", "--json")
    found = json.loads(printed)["findings"]
    assert (code, found[0]["severity"], "TRUNCATE" in found[0]["what"]) == (1, "critical", True)
    code, printed = tmi_ops("plan", "--json")
    assert (code, json.loads(printed)["statements"]) == (
        1,
        [f"REVOKE TRUNCATE ON TABLE public.threats FROM {site.name(RoleKind.APP)};"],
    )


def test_a_new_password_is_given_on_request(site: Site, tmi_ops: Command) -> None:
    assert tmi_ops("apply", "--yes")[0] == 0
    before = site.as_role(RoleKind.APP).password
    assert tmi_ops("apply", "--yes", "--reset-password", "app")[0] == 0
    assert site.as_role(RoleKind.APP).password != before
    assert may(site.as_role(RoleKind.APP), "SELECT 1")


def test_a_server_that_does_not_answer_is_exit_code_2(site: Site, tmi_ops: Command) -> None:
    reachable = site.admin
    site.admin = reachable.model_copy(update={"port": 1})
    assert [tmi_ops(command)[0] for command in ("plan", "check")] == [2, 2]
    site.admin = reachable
