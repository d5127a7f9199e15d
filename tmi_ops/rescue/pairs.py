"""A table in the past and now, and the SQL to identify, compare and move its rows. Pure.

The content of a row, from which its digest is made, is one text, different for different rows:

1. The length of each text column; nothing for NULL.
2. Numbers, times, JSON and the like, each with a terminator that none of them contains; again nothing for NULL.
3. Columns of all other types as a row, in which PostgreSQL quotes what is ambiguous.
4. The texts themselves, unquoted: their lengths are known, and quoting would take most of the time.

Only PostgreSQL's output functions are used, never casts, which may be a table owner's own functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from psycopg import sql

from tmi_ops.backup.snapshot import TableName
from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError
from tmi_ops.postgres.own_text import cast_to_text
from tmi_ops.rescue.shape import Column, Shape, Table, common_columns

# Never empty as text, and without the control character that ends them.
_PLAIN = frozenset(
    {
        "bigint",
        "boolean",
        "bytea",
        "date",
        "double precision",
        "integer",
        "interval",
        "json",
        "jsonb",
        "numeric",
        "oid",
        "real",
        "smallint",
        "time with time zone",
        "time without time zone",
        "timestamp with time zone",
        "timestamp without time zone",
        "uuid",
    }
)
_TEXTS = frozenset({"text", "character varying"})
_END = sql.Literal("\x01")
# A function takes 100 arguments (source: PostgreSQL, Limits).
_ARGUMENTS = 100


def written_out(alias: str, types: Mapping[str, str], *, measurable: bool) -> sql.Composed:
    """The text of the row `alias`.

    Args:
        types: the columns' types on the live side, as `format_type` writes them; a domain's base type.
        measurable: a text has the same number of bytes on both sides, because they have the same encoding.
    """
    kinds = {name: re.sub(r"\([\d, ]+\)", "", kind) for name, kind in types.items()}
    texts = [sql.Identifier(alias, name) for name, kind in kinds.items() if measurable and kind in _TEXTS]
    plain = [sql.Identifier(alias, name) for name, kind in kinds.items() if kind in _PLAIN]
    others = [
        sql.Identifier(alias, name)
        for name, kind in kinds.items()
        if kind not in _PLAIN and not (measurable and kind in _TEXTS)
    ]
    parts: list[sql.Composable] = [
        *_each_with(sql.Literal(","), [sql.SQL("octet_length({})").format(text) for text in texts]),
        sql.Literal("|"),
        *_each_with(_END, plain),
        *([sql.SQL("ROW({})::text").format(sql.SQL(", ").join(others))] if others else []),
        *texts,
    ]
    return _concatenated(parts)


def _each_with(end: sql.Composable, parts: Sequence[sql.Composable]) -> Iterator[sql.Composable]:
    for part in parts:
        yield part
        yield end


def _concatenated(parts: Sequence[sql.Composable]) -> sql.Composed:
    while len(parts) > _ARGUMENTS:
        parts = [_concatenated(parts[begin : begin + _ARGUMENTS]) for begin in range(0, len(parts), _ARGUMENTS)]
    return sql.SQL("concat({})").format(sql.SQL(", ").join(parts))


# Of SHA-256, as in the fingerprint of a table: 128 bits are enough for any number of rows.
DIGEST_BYTES = 16


@dataclass(frozen=True)
class Pair:
    """One table on both sides.

    Args:
        number: used in the names of its temporary tables.
        now: None if it was dropped.
        columns: those of both sides that are not computed; they are compared and moved.
        key: identifies its rows on both sides; empty if only the whole row does.
        casts: columns whose type has changed so that some values may not fit; see casting.py.
        values_only: restore only some columns' values in rows that still exist, and no rows.
        measurable: a text has the same number of bytes on both sides.
    """

    number: int
    then: Table
    now: Table | None
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    casts: tuple[str, ...] = ()
    values_only: bool = False
    measurable: bool = True

    @property
    def name(self) -> TableName:
        return self.then.name

    @property
    def lost_columns(self) -> tuple[Column, ...]:
        """Columns dropped since."""
        return () if self.now is None else tuple(c for c in self.then.columns if c.name not in self.now.column_names)

    @property
    def new_columns(self) -> tuple[Column, ...]:
        return () if self.now is None else tuple(c for c in self.now.columns if c.name not in self.then.column_names)

    @property
    def table(self) -> sql.Identifier:
        return self.name.identifier

    @property
    def source(self) -> sql.Identifier:
        """Where its rows are on the past's side: the table, or the temporary one with cast values as text."""
        return self.temporary("cast") if self.casts else self.table

    def type_then(self, column: str) -> str:
        """The type for a column's values, past and current, in temporary tables of the past's server."""
        return "text" if column in self.casts else self.type_now(column)

    def type_now(self, column: str) -> str:
        """The type for a column's values in temporary tables of the live server."""
        found = (self.now or self.then).column(column)
        if found is None:  # a pair's columns exist on both sides
            raise AssertionError(column)
        return found.storage or found.type

    def temporary(self, purpose: str) -> sql.Identifier:
        """`picked`, `rows`, `now`, `state` on the past's side, `stage` on the live side."""
        return sql.Identifier("pg_temp", f"rescue_{purpose}_{self.number}")

    def digest(self, alias: str) -> sql.Composed:
        """A 16-byte digest of a row's compared columns (see the module docstring); output must be pinned."""
        types = {column.name: self.type_now(column.name) for column in self.columns}
        return sql.SQL("substr(sha256(textsend({})), 1, {})").format(
            written_out(alias, types, measurable=self.measurable), sql.Literal(DIGEST_BYTES)
        )

    @property
    def places(self) -> tuple[str, ...]:
        """Names of the key's columns in temporary tables: k1, k2. The table's own names could clash with ours."""
        return tuple(f"k{number}" for number in range(1, len(self.key) + 1))

    def text_then(self, alias: str, column: str) -> sql.Composed:
        """A past value as text; cast values already are."""
        value, then = sql.Identifier(alias, column), self.then.column(column)
        if then is None or column in self.casts:
            return sql.SQL("{}").format(value)
        return cast_to_text(value, then.type)

    def same_key(self, row: str, temporary: str) -> sql.Composed:
        """SQL that is true if a temporary table's row has this row's key."""
        return equal(row, self.key, temporary, self.places)

    def keys_as_places(self, row: str) -> sql.Composed:
        """`row.id AS k1`"""
        return sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(sql.Identifier(row, name), sql.Identifier(place))
            for name, place in zip(self.key, self.places, strict=True)
        )

    def declared_places(self, *, living: bool = True) -> sql.Composed:
        """`k1 integer, k2 text`, for a temporary table of either side."""
        types = self.type_now if living else self.type_then
        return sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(place), sql.SQL(types(name)))
            for name, place in zip(self.key, self.places, strict=True)
        )

    def key_text(self, alias: str) -> sql.Composed:
        """A row's key for display, as SQL: `a, b`, or the beginning of the row if there is no key."""
        if not self.key:
            return sql.SQL("left(textin(record_out({})), 60)").format(sql.Identifier(alias))
        return sql.SQL("concat_ws(', ', {})").format(listed(alias, self.key))


def pair_tables(then: Shape, now: Shape) -> dict[TableName, Pair]:
    """Every table of the past with its current counterpart."""
    pairs = {}
    for number, (name, table) in enumerate(then.tables.items()):
        living = now.tables.get(name)
        columns = common_columns(table, living)
        casts = tuple(column.name for column in columns if living and must_be_cast(column, living.column(column.name)))
        key = _shared_key(table, living, columns)
        pairs[name] = Pair(number, table, living, columns, key, casts, measurable=then.encoding == now.encoding)
    return pairs


# Each type has all values of those before it, with the same text.
_WIDER = (
    ("smallint", "integer", "bigint", "numeric"),
    ("character varying", "text"),
    ("character varying", "character varying"),
)
_MODIFIER = re.compile(r"^(.*?)\((\d+)\)$")


def must_be_cast(then: Column, now: Column | None) -> bool:
    """Whether a past value may not fit the column's current type, or have another text."""
    if now is None or (then.type, then.defined) == (now.type, now.defined):
        return False
    if then.defined or now.defined:
        return True
    (then_type, then_length), (now_type, now_length) = _taken_apart(then.type), _taken_apart(now.type)
    if now_length is not None and (then_length is None or then_length > now_length):
        return True
    return not any(then_type in family and now_type in family[family.index(then_type) :] for family in _WIDER)


def _taken_apart(name: str) -> tuple[str, int | None]:
    match = _MODIFIER.match(name)
    return (match[1], int(match[2])) if match else (name, None)


def find_table(pairs: Mapping[TableName, Pair], then: Shape, words: str) -> Pair:
    """The table of a name given by the user, which must hold rows itself.

    Raises:
        RecoveryError: the past has none or several of that name, or it is partitioned.
    """
    name = find_name(then, words)
    if name not in pairs:
        raise RecoveryError(f"{name} is partitioned.", hint=f"name one of its partitions: {_some(then, name)}")
    return pairs[name]


def find_tables(pairs: Mapping[TableName, Pair], then: Shape, words: str) -> tuple[Pair, ...]:
    """The table of a name given by the user, or the partitions that hold its rows.

    Raises:
        RecoveryError: the past has none or several of that name.
    """
    return tuple(pairs[part] for part in then.parts_of(find_name(then, words)))


def find_name(then: Shape, words: str) -> TableName:
    """The table name that the user means.

    Raises:
        RecoveryError: the past has none or several of that name.
    """
    name = then.find(words)
    if name is None:
        raise _no_table(then, words)
    return name


def _no_table(then: Shape, words: str) -> RecoveryError:
    several = sorted(str(name) for name in (*then.tables, *then.partitions) if name.name == words)
    if several:
        return RecoveryError(
            f"There was more than one table {words} at that moment.", hint=f"name one of {', '.join(several)}"
        )
    names = {short: name for name in (*then.tables, *then.partitions) for short in (name.name, str(name))}
    alike = get_close_matches(words, names, n=1)
    meant = f"did you mean {alike[0]}? " if alike else ""
    return RecoveryError(
        f"There was no table {words} at that moment.",
        hint=f"{meant}`tmi-ops recover diff` lists the tables that differ",
        code=Code.NOT_IN_PAST,
    )


def _some(then: Shape, name: TableName) -> str:
    parts = then.parts_of(name)
    return ", ".join([*map(str, parts[:3]), *(["..."] if len(parts) > 3 else [])]) or "it had none"


def _shared_key(then: Table, now: Table | None, columns: Iterable[Column]) -> tuple[str, ...]:
    """The past's key, if it is one in the live table, too."""
    if not set(then.key) <= {column.name for column in columns}:
        return ()
    if now is None or set(now.key) == set(then.key):
        return then.key
    quoted = {frozenset(index.expressions) for index in now.uniques if index.predicate is None}
    return then.key if frozenset(then.key) in quoted else ()


def listed(alias: str, columns: Iterable[str]) -> sql.Composed:
    """`alias.a, alias.b`"""
    return sql.SQL(", ").join(sql.Identifier(alias, column) for column in columns)


def equal(one: str, columns: Iterable[str], other: str, others: Iterable[str]) -> sql.Composed:
    """`one.a = other.x AND one.b = other.y`"""
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(one, left), sql.Identifier(other, right))
        for left, right in zip(columns, others, strict=True)
    )
