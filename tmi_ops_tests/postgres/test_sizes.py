from __future__ import annotations

import pytest

from tmi_ops.errors import DatabaseError
from tmi_ops.postgres.sizes import BLOCK, parse_size, shown_size


@pytest.mark.parametrize(
    ("text", "unit", "size"),
    [
        ("16MB", 1, 16 << 20),
        ("'128kB'", 1, 128 << 10),
        ("1 GB", 1, 1 << 30),
        ("2TB", 1, 2 << 40),
        ("16384", BLOCK, 16384 * 8192),
        ("-1", 1, -1),
        ("512B", BLOCK, 512),
        ("16 megabytes", 1, None),
        ("", 1, None),
    ],
)
def test_a_size_is_read_as_postgresql_reads_it(text: str, unit: int, size: int | None) -> None:
    assert parse_size(text, unit) == size


def test_an_answer_of_the_server_that_is_no_size_is_an_error() -> None:
    with pytest.raises(DatabaseError, match="'much', which is not a size"):
        shown_size("much")
