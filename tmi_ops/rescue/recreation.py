"""What would prevent dropped tables from being recreated, found while planning.

1. Their definitions are created in a transaction that is rolled back, which shows missing owners, types and functions.
   Foreign keys are not created, because they would lock live tables.
2. Foreign keys of live tables were dropped with the tables. Rows written since may reference rows that did not exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import psycopg
from psycopg import sql

from tmi_ops.backup.snapshot import TableName
from tmi_ops.errors import first_line
from tmi_ops.rescue.barriers import Barrier
from tmi_ops.rescue.definitions import lost_definitions
from tmi_ops.rescue.links import Link, link_of
from tmi_ops.rescue.pairs import Pair, equal
from tmi_ops.rescue.session import Sides
from tmi_ops.rescue.staging import place_of, staged


def dropped_keys(sides: Sides, lost: Sequence[Pair]) -> tuple[Link, ...]:
    """Foreign keys of live tables that were dropped with these tables and are restored with them."""
    names = {pair.name for pair in lost}
    return tuple(
        link
        for key in sides.then.foreign_keys
        if key.child in sides.living.tables and key not in sides.living.foreign_keys
        if names & set((link := link_of(key, sides.then)).parents)
        and set(key.columns) <= sides.living.tables[key.child].column_names
    )


def recreation_barriers(sides: Sides, pairs: Sequence[Pair]) -> Iterator[Barrier]:
    """What prevents dropped ones of these tables from being recreated; their rows must be staged."""
    lost = [pair for pair in pairs if pair.now is None]
    if not lost:
        return
    yield from _rehearsed(sides, lost)
    by_name = {pair.name: pair for pair in pairs}
    for link in dropped_keys(sides, lost):
        yield from _without_parent(sides, by_name, link)


def _rehearsed(sides: Sides, lost: Sequence[Pair]) -> Iterator[Barrier]:
    definitions = lost_definitions(sides, lost)
    try:
        with sides.now.transaction(force_rollback=True):
            sides.now.execute("SET LOCAL lock_timeout = '1s'")
            definitions.rehearse(sides.now)
    except (psycopg.errors.LockNotAvailable, psycopg.errors.InvalidSchemaName):
        return  # the execution waits longer for a lock; a missing schema is reported elsewhere
    except psycopg.Error as error:
        names = " and ".join(str(pair.name) for pair in lost)
        yield Barrier(f"{names} cannot be recreated: {first_line(error)}.", _advice(error))


def _advice(error: psycopg.Error) -> str:
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return "run this as a superuser, or as a member of the role that owned it"
    return (
        "first recreate what it needs: a role with CREATE ROLE, a type or function as it was then (see it in the past "
        "with `tmi-ops travel`)"
    )


def _without_parent(sides: Sides, pairs: Mapping[TableName, Pair], link: Link) -> Iterator[Barrier]:
    """Current rows whose referenced rows would not exist."""
    parents = [pairs[name] for name in link.parents if name in pairs]
    there = [name for name in link.parents if name in sides.living.tables]  # partitions that were not dropped
    query = sql.SQL("SELECT count(*) FROM ONLY {} c WHERE {}").format(
        link.child.identifier,
        sql.SQL(" AND ").join(
            [
                *(sql.SQL("c.{} IS NOT NULL").format(sql.Identifier(column)) for column in link.columns),
                *(_refers_to_none_staged(parent, link) for parent in parents),
                *(_refers_to_none_of(name.identifier, link) for name in there),
                *_not_changed_back(pairs.get(link.child)),
            ]
        ),
    )
    row = sides.now.execute(query).fetchone() if parents else None
    if row and row[0]:
        columns = ", ".join(link.columns)
        yield Barrier(
            f"{row[0]:,} rows of {link.child} reference by {columns} rows of {link.parent} that did not exist then, so "
            "the foreign key cannot be restored.",
            f"change {columns} in these rows, or delete them; then run the same command again",
        )


def _refers_to_none_of(parent: sql.Identifier, link: Link) -> sql.Composed:
    return sql.SQL("NOT EXISTS (SELECT FROM ONLY {} p WHERE {})").format(
        parent, equal("p", link.referenced, "c", link.columns)
    )


def _refers_to_none_staged(parent: Pair, link: Link) -> sql.Composed:
    places = [place_of(parent, column) for column in link.referenced]
    return sql.SQL("NOT EXISTS (SELECT FROM {} p WHERE {})").format(
        staged(parent), equal("p", places, "c", link.columns)
    )


def _not_changed_back(child: Pair | None) -> Iterator[sql.Composed]:
    if child is not None and child.now is not None and child.key:
        places = [place_of(child, name) for name in child.key]
        yield sql.SQL("NOT EXISTS (SELECT FROM {} u WHERE u.action = 'update' AND {})").format(
            staged(child), equal("u", places, "c", child.key)
        )
