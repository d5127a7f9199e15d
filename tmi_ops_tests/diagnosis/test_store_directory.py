"""The doctor on a store that is a directory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tmi_ops.checks.finding import Outcome
from tmi_ops.diagnosis.chain import walk
from tmi_ops.diagnosis.context import DiagnosisContext
from tmi_ops.diagnosis.finding import Area
from tmi_ops.diagnosis.store import STORE_LINKS
from tmi_ops.diagnosis.store_directory import DIRECTORY_LINKS, look_at_copies, look_at_directory
from tmi_ops.diagnosis.trust import TRUST_LINKS
from tmi_ops.settings import Retain, StoreSettings
from tmi_ops.store.directory.backend import DirectoryBackend
from tmi_ops.store.objects import make_place


def context(directory: Path, environment: str = "development", retain: Retain | None = None) -> DiagnosisContext:
    store = StoreSettings(directory=directory, retain=retain)
    return cast(DiagnosisContext, SimpleNamespace(settings=SimpleNamespace(store=store, environment=environment)))


def test_a_directory_is_tried_out_and_left_as_it_was(tmp_path: Path) -> None:
    make_place(StoreSettings(directory=tmp_path))
    found = look_at_directory(context(tmp_path))
    assert found.outcome is Outcome.OK
    assert "GiB are free" in found.seen
    assert [path.name for path in tmp_path.iterdir()] == [".tmi-ops-store"]
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "locks" not in path.parts] == [
        tmp_path / ".tmi-ops-store/id"
    ]


def test_a_directory_that_is_not_mounted_is_broken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, said in (("mount", "does not exist"), ("empty", "no store in the directory")):
        found = look_at_directory(context(tmp_path / name))
        assert found.outcome is Outcome.CRITICAL
        assert said in found.seen
        assert "mount its disk" in found.advice.steps[0]
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_lock_that_no_directory_has_is_broken(tmp_path: Path) -> None:
    found = look_at_directory(context(tmp_path, retain=Retain.model_validate({"period": "P30D"})))
    assert found.outcome is Outcome.CRITICAL
    assert "TMI_OPS_RETAIN" in found.seen


def test_a_file_system_that_forgets_conditions_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_place(StoreSettings(directory=tmp_path))
    put = DirectoryBackend.put
    monkeypatch.setattr(DirectoryBackend, "put", lambda self, key, body, condition=None: put(self, key, body))
    found = look_at_directory(context(tmp_path))
    assert (found.outcome, found.seen) == (
        Outcome.CRITICAL,
        "an object was overwritten although a condition forbade it",
    )


@pytest.mark.parametrize(("environment", "outcome"), [("development", Outcome.OK), ("production", Outcome.WARNING)])
def test_a_directory_of_production_is_warned_of(tmp_path: Path, environment: str, outcome: Outcome) -> None:
    assert look_at_copies(context(tmp_path, environment)).outcome is outcome


def test_what_only_a_server_has_is_not_applicable(tmp_path: Path) -> None:
    of_store = [link for link in (*STORE_LINKS, *TRUST_LINKS, *DIRECTORY_LINKS) if link.area is Area.STORE]
    links = [replace(link, needs=tuple(set(link.needs) - {"settings"})) for link in of_store if link.name != "keys"]
    results = {one.name: one.outcome for one in walk(links, context(tmp_path / "mount"))}
    assert results.pop("store-directory") is Outcome.CRITICAL
    assert results.pop("store-copies") is Outcome.SKIPPED
    assert results.pop("store-settings") is Outcome.OK
    assert set(results.values()) == {Outcome.NOT_APPLICABLE}
