"""The two sides of a rescue: the past, which only we use, and the live database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from tmi_ops.backup.snapshot import TableName
from tmi_ops.postgres.connections import connect
from tmi_ops.profile import Tie
from tmi_ops.profile.tmi import TMI
from tmi_ops.rescue.comparing import prepare, prepare_past
from tmi_ops.rescue.links import Link, links_between
from tmi_ops.rescue.pairs import Pair, pair_tables
from tmi_ops.rescue.shape import Shape, read_shape
from tmi_ops.settings import PostgresSettings


@dataclass(frozen=True)
class Sides:
    """Both connections, and both catalogues as read when they were opened.

    The past's connection has the temporary tables of rows to restore. `bindir`: TMI_OPS_PG_BINDIR. `ties`: the
    profile's.
    """

    past: psycopg.Connection[Any]
    now: psycopg.Connection[Any]
    past_address: PostgresSettings
    then: Shape
    living: Shape
    pairs: Mapping[TableName, Pair]
    links: tuple[Link, ...]
    bindir: Path | None = None
    ties: tuple[Tie, ...] = TMI.ties


@contextmanager
def both_sides(
    past: PostgresSettings, now: PostgresSettings, bindir: Path | None = None, ties: tuple[Tie, ...] = TMI.ties
) -> Iterator[Sides]:
    """Connect to both for the length of a `with` block; writes nothing to the live side.

    Raises:
        DatabaseError: one of them could not be reached.
    """
    with connect(past) as then, connect(now) as living:
        prepare_past(then)
        prepare(living)
        yield _read(then, living, past, bindir, ties)


def read_again(sides: Sides) -> Sides:
    """The same connections with the catalogues read again."""
    return _read(sides.past, sides.now, sides.past_address, sides.bindir, sides.ties)


def _read(
    past: psycopg.Connection[Any],
    now: psycopg.Connection[Any],
    address: PostgresSettings,
    bindir: Path | None,
    ties: tuple[Tie, ...],
) -> Sides:
    then, living = read_shape(past), read_shape(now)
    links = links_between(then, living, ties)
    return Sides(past, now, address, then, living, pair_tables(then, living), links, bindir, ties)
