"""RESTORE.md's own check of signatures, run by a shell with the stock minisign program."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from tmi_ops.store.minisign import new_secret_key, sign
from tmi_ops.store.restore_guide import GUIDE_KEY

pytestmark = pytest.mark.skipif(shutil.which("minisign") is None, reason="the minisign program is not here")
BASH = shutil.which("bash") or "bash"
KEY = new_secret_key()


def checked_function() -> str:
    """The lines of the guide that define `checked`."""
    guide = (files("tmi_ops.store") / GUIDE_KEY).read_text()
    found = re.search(r"^checked\(\) \{\n.*?^\}\n", guide, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[0]


def run(directory: Path, key: str) -> subprocess.CompletedProcess[str]:
    script = f"set -u\nSIGNED_BY='{key}'\n{checked_function()}checked manifest.json SHA256SUMS && echo go on"
    return subprocess.run([BASH, "-c", script], cwd=directory, capture_output=True, text=True, check=False)


@pytest.fixture
def fetched(tmp_path: Path) -> Path:
    for name in ("manifest.json", "SHA256SUMS"):
        (tmp_path / name).write_text(f"of {name}\n")
        comment = f"timestamp:1 environment:production file:logical/x/{name}"
        (tmp_path / f"{name}.minisig").write_bytes(sign(KEY, (tmp_path / name).read_bytes(), comment))
    return tmp_path


def test_what_we_signed_passes_and_says_what_it_is(fetched: Path) -> None:
    done = run(fetched, KEY.public.text)
    assert done.returncode == 0
    assert "environment:production file:logical/x/manifest.json" in done.stdout
    assert done.stdout.endswith("go on\n")


@pytest.mark.parametrize("attack", ["alter", "unsign", "another key"])
def test_what_was_forged_stops_there(fetched: Path, attack: str) -> None:
    if attack == "alter":
        (fetched / "SHA256SUMS").write_text("evil\n")
    if attack == "unsign":
        (fetched / "manifest.json.minisig").unlink()
    key = new_secret_key().public.text if attack == "another key" else KEY.public.text
    done = run(fetched, key)
    assert done.returncode != 0
    assert "go on" not in done.stdout


def test_without_keys_the_steps_go_on_as_before(fetched: Path) -> None:
    assert run(fetched, "").stdout == "go on\n"
