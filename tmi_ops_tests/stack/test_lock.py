from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tmi_ops.stack.lock import FileLock, holder


def test_only_one_holds_the_lock_and_its_signature_says_who(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.try_exclusive()
    first.sign(os.getpid())
    assert not second.try_exclusive()
    assert holder(tmp_path / "lock") == os.getpid()
    first.close()
    assert holder(tmp_path / "lock") is None
    assert second.try_exclusive()
    second.close()


def test_a_shared_lock_lasts_until_the_last_server_that_inherited_it_has_ended(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    assert lock.try_exclusive()
    lock.share()
    server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=[lock.descriptor])
    lock.close()
    successor = FileLock(tmp_path / "lock")
    assert not successor.await_exclusive(0.3)
    server.kill()
    server.wait()
    assert successor.await_exclusive(5)
    successor.close()


def test_nobody_holds_a_lock_whose_file_was_never_made(tmp_path: Path) -> None:
    assert holder(tmp_path / "lock") is None
