"""Which values a cast may turn into text."""

from __future__ import annotations

import pytest
from psycopg import sql

from tmi_ops.postgres.own_text import cast_to_text


@pytest.mark.parametrize("exact", ["integer", "character varying(40)", "numeric(6,1)", "timestamp with time zone"])
def test_types_of_postgresql_are_cast(exact: str) -> None:
    assert cast_to_text(sql.Identifier("v"), exact).as_string(None) == '"v"::text'


@pytest.mark.parametrize("exact", ["public.mood", "public.mood[]", '"odd schema"."type"', "gis.geometry(Point,4326)"])
def test_types_of_others_are_written_by_their_output_function(exact: str) -> None:
    written = cast_to_text(sql.Identifier("v"), exact).as_string(None)
    assert ("::text" in written, "pg_catalog.concat" in written) == (False, True)
