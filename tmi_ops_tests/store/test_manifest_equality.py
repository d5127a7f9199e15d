"""A manifest is what it says, wherever it came from."""

from __future__ import annotations

from tmi_ops_tests.recovery.point_in_time.pasts import a_base


def test_a_manifest_equals_itself_read_from_the_store() -> None:
    made, read = a_base("20261124T120100Z-base-aaaa", 1), a_base("20261124T120100Z-base-aaaa", 1)
    read.remember_stored(b"as it lies in the store")
    assert made == read
    assert hash(made) == hash(read)
    assert made != a_base("20261124T120100Z-base-aaaa", 2)
