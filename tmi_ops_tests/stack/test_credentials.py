from __future__ import annotations

from pathlib import Path

import pytest

from tmi_ops.errors import StackError
from tmi_ops.stack.credentials import stack_credentials


def test_secrets_are_generated_once_and_kept_in_a_file_of_their_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "credentials.json"
    first = stack_credentials(file)
    assert stack_credentials(file) == first
    assert file.stat().st_mode & 0o777 == 0o600
    assert first.postgres.get_secret_value() not in repr(first)


def test_a_damaged_file_is_refused_and_left_alone_because_new_secrets_would_open_nothing(tmp_path: Path) -> None:
    file = tmp_path / "credentials.json"
    file.write_text('{"postgres": "only one"}')
    with pytest.raises(StackError, match="damaged"):
        stack_credentials(file)
    assert file.read_text() == '{"postgres": "only one"}'
