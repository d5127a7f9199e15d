from __future__ import annotations

import pytest

from tmi_ops.wal.slot import waits_for_us


@pytest.mark.parametrize(
    "names", ["tmi_ops", "TMI_OPS", "*", "replica, tmi_ops", "2 (a,tmi_ops)", 'ANY 1 ("tmi_ops", a)', "FIRST 1 (*)"]
)
def test_commits_wait_for_us_when_we_or_any_are_named(names: str) -> None:
    assert waits_for_us(names)


@pytest.mark.parametrize("names", ["", "replica", "FIRST 1 (tmi_ops_too, my_tmi_ops)", '"tmi_ops "', '"a""tmi_ops"'])
def test_others_of_a_like_name_are_not_us(names: str) -> None:
    assert not waits_for_us(names)
