"""A definition must not seem changed only because PostgreSQL words it differently after a restore."""

from __future__ import annotations

import pytest

from tmi_ops.backup.inventory import canonical
from tmi_ops.postgres.connections import connect
from tmi_ops.settings import PostgresSettings

DEFINITION = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s"


@pytest.mark.parametrize(
    "check",
    [
        "role IN ('owner', 'wri,ter', 'rea]d''er', 'a)b')",
        "role IS NULL OR role IN ('x', 'y') AND number IN (1, 2)",
        "number = ANY (ARRAY[1, 2]::bigint[])",
        "lower(role) IN ('x', 'y') OR role LIKE 'ARRAY[%'",
        "short IN ('a', 'b')",
        "number > 3 AND tags && ARRAY['a', 'b']::varchar(9)[]",
    ],
)
def test_a_check_has_one_wording_before_and_after_its_definition_is_read_back(
    database: PostgresSettings, check: str
) -> None:
    with connect(database) as connection:
        connection.execute(
            b"CREATE TABLE t (role varchar(40), number int, short char(3), tags varchar(9)[], CONSTRAINT a CHECK (%s))"
            % check.encode()
        )
        before = connection.execute(DEFINITION, ["a"]).fetchone()
        assert before is not None
        connection.execute(f"ALTER TABLE t ADD CONSTRAINT b {before[0]}".encode())
        after = connection.execute(DEFINITION, ["b"]).fetchone()
    assert after is not None
    assert canonical(before[0]) == canonical(after[0]) == after[0]


def test_a_changed_value_still_shows() -> None:
    one = "CHECK (((role)::text = ANY ((ARRAY['a'::character varying, 'b'::character varying])::text[])))"
    other = one.replace("'b'", "'c'")
    assert canonical(one) != canonical(other)
