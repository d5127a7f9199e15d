"""`tmi-ops prune`, `hold`, `release` and `holds` on a real S3 server."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tmi_ops.cli.main import main
from tmi_ops.settings import Settings
from tmi_ops.store.catalogue import list_backups
from tmi_ops.store.objects import ObjectStore, open_store
from tmi_ops_tests.retention.stored import removing, write_backup
from tmi_ops_tests.variables import variables_of

HALF = "20200101T000000Z-logical-0000"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    return open_store(settings.store, settings.environment)


@pytest.fixture
def tmi_ops(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Exit code, stdout and stderr of a command line run in this process."""
    for name, value in variables_of(settings).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def test_a_dry_run_says_why_each_backup_stays_and_removes_nothing(tmi_ops: Command, store: ObjectStore) -> None:
    backup_id = write_backup(store)
    before = {item.key for item in store.list_objects("")}
    code, said, _ = tmi_ops("prune", "--dry-run")
    assert code == 0
    assert "Policy: 7 days, the last 3, 7 daily, 4 weekly, 6 monthly." in said
    assert f"keep    {backup_id}" in said
    assert "the newest verified" in said
    assert "within the recovery window" in said
    assert {item.key for item in store.list_objects("")} == before


def test_the_policy_comes_from_variables_and_json_carries_plan_and_deed(
    tmi_ops: Command, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMI_OPS_KEEP_LAST", "2")
    monkeypatch.setenv("TMI_OPS_RECOVERY_WINDOW", "2d")
    backup_id = write_backup(store)
    code, said, _ = tmi_ops("prune", "--json", "--yes")
    facts = json.loads(said)
    assert code == 0
    assert (facts["policy"]["last"], facts["policy"]["window"]) == (2, "P2D")
    assert [kept["backup_id"] for kept in facts["kept"]] == [backup_id]
    assert facts["done"] is None  # nothing to do
    assert facts["rights"] == {"store_keys": [], "database_role": None}  # and nothing to be allowed


@pytest.mark.parametrize("may", [True, False])
def test_prune_says_what_the_store_s_keys_lack_and_begins_nothing_without_it(
    tmi_ops: Command, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, may: bool
) -> None:
    old, new = write_backup(store), write_backup(store)
    monkeypatch.setattr("tmi_ops.retention.planning.plan_retention", lambda *_: removing(store, old))
    if not may:
        monkeypatch.setattr("tmi_ops.retention.rights.may_delete", lambda _: False)
    _, planned, _ = tmi_ops("prune", "--dry-run", "--json")
    assert json.loads(planned)["rights"]["store_keys"] == [{"right": "s3:DeleteObject", "may": may, "because": ""}]
    lacks = "The store's keys lack s3:DeleteObject"
    assert (lacks in tmi_ops("prune", "--dry-run")[1]) is not may
    code, _, said = tmi_ops("prune", "--yes")
    assert (code, lacks in said) == ((0, False) if may else (2, True))
    assert {one.manifest.backup_id for one in list_backups(store)} == ({new} if may else {new, old})


@pytest.mark.parametrize("variable", ["TMI_OPS_KEEP_LAST", "TMI_OPS_RECOVERY_WINDOW"])
def test_a_policy_that_keeps_nothing_is_refused_by_the_name_of_its_variable(
    tmi_ops: Command, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "0")
    code, _, said = tmi_ops("prune", "--dry-run")
    assert code == 2
    assert variable in said


def test_json_without_a_dry_run_needs_yes_because_nobody_could_be_asked(tmi_ops: Command) -> None:
    code, _, said = tmi_ops("prune", "--json")
    assert code == 2
    assert "--yes" in said


def test_a_damaged_manifest_stops_prune_with_exit_2_and_everything_stays(tmi_ops: Command, store: ObjectStore) -> None:
    write_backup(store)
    store.put_bytes(f"logical/{HALF}/manifest.json", b"{}")
    before = {item.key for item in store.list_objects("")}
    code, _, said = tmi_ops("prune", "--yes")
    assert code == 2
    assert "manifest.json cannot be read" in said
    assert {item.key for item in store.list_objects("")} == before


def test_a_hold_is_listed_with_its_reason_until_it_is_released(tmi_ops: Command, store: ObjectStore) -> None:
    backup_id = write_backup(store)
    assert tmi_ops("holds")[1] == "No backup is on hold.\n"
    assert tmi_ops("hold", backup_id, "--reason", "audit [2026]")[0] == 0
    assert "audit [2026]" in tmi_ops("holds")[1]
    assert [one["backup_id"] for one in json.loads(tmi_ops("holds", "--json")[1])] == [backup_id]
    assert "held: audit [2026]" in tmi_ops("prune", "--dry-run")[1]
    code, _, said = tmi_ops("hold", backup_id, "--reason", "another")
    assert (code, "already held" in said) == (2, True)
    assert tmi_ops("release", backup_id)[0] == 0
    assert tmi_ops("release", backup_id)[0] == 2
    assert tmi_ops("holds")[1] == "No backup is on hold.\n"


def test_a_hold_needs_a_reason_and_a_backup_that_exists(tmi_ops: Command, store: ObjectStore) -> None:
    backup_id = write_backup(store)
    assert tmi_ops("hold", backup_id)[0] == 2
    assert tmi_ops("hold", backup_id, "--reason", " ")[0] == 2
    assert tmi_ops("hold", HALF, "--reason", "audit")[0] == 2
    assert tmi_ops("holds")[1] == "No backup is on hold.\n"
