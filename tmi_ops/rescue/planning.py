"""The plan of a rescue, down to the row. Planning writes nothing to the live database."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg import sql

from tmi_ops.backup.snapshot import TableName
from tmi_ops.progress import Report
from tmi_ops.rescue.barriers import Barrier, find_barriers, require_primary
from tmi_ops.rescue.closure import pick
from tmi_ops.rescue.comparing import as_of_one_moment, compare_picked
from tmi_ops.rescue.conflicts import CONFLICTS, Kind, apply_policy, decide, find_obstacles, skip_held_values
from tmi_ops.rescue.dropped import dropped_with
from tmi_ops.rescue.links import Link, insertion_order, link_of
from tmi_ops.rescue.pairs import Pair
from tmi_ops.rescue.recreation import recreation_barriers
from tmi_ops.rescue.selection import Policy, Selection
from tmi_ops.rescue.session import Sides
from tmi_ops.rescue.values_only import with_values_only

EXAMPLES = 5


@dataclass(frozen=True)
class TablePlan:
    """Rows of one table.

    Args:
        insert: missing now, will be inserted; `for_others` of them only because another row references them.
        update: exist with other content, will be updated to the past.
        keep: exist with other content, will not change.
        leave: cannot be restored, or are skipped.
        as_it_was: compared and equal to the past.
        gone: missing now and not restored, because only values are.
        recreate: the table itself was dropped and is recreated.
        fires: live triggers and rules that the writes fire.
    """

    table: str
    insert: int
    update: int
    keep: int
    leave: int
    as_it_was: int
    for_others: int = 0
    gone: int = 0
    recreate: bool = False
    fires: tuple[str, ...] = ()

    @property
    def written(self) -> int:
        return self.insert + self.update


@dataclass(frozen=True)
class Conflict:
    """Rows of one table with the same conflict; `examples` are keys.

    `becomes`: how the policy resolves it, in words; None: it does not, so nothing is done.
    """

    table: str
    kind: Kind
    rows: int
    detail: str
    examples: tuple[str, ...]
    becomes: str | None


@dataclass(frozen=True)
class RescuePlan:
    """What will be done.

    Args:
        past: a description of the past; `database`: the live one.
        order: tables in groups in the order of writing, parents first.
        barriers: what prevents the plan from being executed.
        digest: of every planned row with its past and current content; a different plan has another digest.
    """

    past: str
    database: str
    selection: Selection
    tables: tuple[TablePlan, ...]
    conflicts: tuple[Conflict, ...]
    order: tuple[tuple[TableName, ...], ...]
    notes: tuple[str, ...]
    digest: str
    barriers: tuple[Barrier, ...] = ()

    @property
    def rows(self) -> int:
        """How many rows will be written."""
        return sum(table.written for table in self.tables)

    @property
    def unsolved(self) -> tuple[Conflict, ...]:
        return tuple(conflict for conflict in self.conflicts if conflict.becomes is None)


def plan_rescue(sides: Sides, selection: Selection, past: str, report: Report) -> RescuePlan:
    """Find the rows, compare them with the live ones, find conflicts, and resolve them by the policy.

    Args:
        past: a description of the past.

    Raises:
        RecoveryError: the past does not have what the selection names, or the live server is a standby.
    """
    require_primary(sides.now)
    if selection.values is not None:
        sides = with_values_only(sides, selection.values)
    chosen = pick(sides, selection)
    picked = chosen.tables
    sides.past.execute(
        sql.SQL("CREATE TEMP TABLE {} (number integer, row_id tid, kind text, detail text)").format(CONFLICTS)
    )
    with as_of_one_moment(sides.now):
        with report.phase("compare with now", total=len(picked), unit="tables") as phase:
            for pair in picked:
                compare_picked(sides.past, sides.now, pair, whole=chosen.is_whole(pair))
                decide(sides.past, sides.now, pair, selection.policy)
                phase.advance(1)
        with report.phase("look for conflicts", total=1, unit="steps") as phase:
            find_obstacles(sides, picked, required_links(sides))
            apply_policy(sides.past, picked, sides.links, selection.policy)
            skip_held_values(sides, picked)
            returning = tuple(recreation_barriers(sides, picked))
            phase.advance(1)
    tables = tuple(_table_plan(sides, pair) for pair in picked)
    written = [pair for pair, plan in zip(picked, tables, strict=True) if plan.written]
    return RescuePlan(
        past=past,
        database=sides.now.info.dbname,
        selection=selection,
        tables=tables,
        conflicts=_conflicts(sides, picked, selection.policy),
        order=insertion_order((pair.name for pair in written), required_links(sides)),
        notes=(*_notes(written, tables), *_notes_of_dropped(sides, written), *_notes_of_server(sides)),
        digest=planned_digest(sides, written),
        barriers=(*find_barriers(sides, written, {table.table for table in tables if table.insert}), *returning),
    )


def required_links(sides: Sides) -> tuple[Link, ...]:
    """The foreign keys that the rows must satisfy: the live ones, and those of recreated tables."""
    keys = [
        *sides.living.foreign_keys,
        *(key for key in sides.then.foreign_keys if key.child not in sides.living.tables),
    ]
    links = [link_of(key, sides.then) for key in keys]
    return tuple(dict.fromkeys(link for link in links if _is_moved(sides, link)))


def _is_moved(sides: Sides, link: Link) -> bool:
    """Whether the referencing columns are restored."""
    pair = sides.pairs.get(link.child)
    return pair is not None and {column.name for column in pair.columns} >= set(link.columns)


def planned_digest(sides: Sides, pairs: Sequence[Pair]) -> str:
    """One digest of all rows that will be written, with their past and current content."""
    whole = hashlib.sha256()
    for pair in sorted(pairs, key=lambda one: str(one.name)):
        row = sides.past.execute(
            sql.SQL(
                "SELECT count(*), coalesce(sum(('x' || substr(encode(sha256(digest || coalesce(now_digest, '') || "
                "convert_to(action, 'UTF8')), 'hex'), 1, 16))::bit(64)::bigint), 0) FROM {} "
                "WHERE action IN ('insert', 'update')"
            ).format(pair.temporary("state"))
        ).fetchone()
        whole.update(f"{pair.name} {row}\n".encode())
    return whole.hexdigest()


def _table_plan(sides: Sides, pair: Pair) -> TablePlan:
    row = sides.past.execute(
        sql.SQL(
            "SELECT count(*) FILTER (WHERE action = 'insert'), count(*) FILTER (WHERE action = 'update'), "
            "count(*) FILTER (WHERE action = 'keep'), count(*) FILTER (WHERE action = 'leave'), "
            "(SELECT count(*) FROM {picked}) - count(*), "
            "count(*) FILTER (WHERE action = 'insert' AND reason = 'parent'), count(*) FILTER (WHERE action = 'gone') "
            "FROM {state}"
        ).format(picked=pair.temporary("picked"), state=pair.temporary("state"))
    ).fetchone()
    if row is None:  # an aggregate has its row
        raise AssertionError
    insert, update, keep, leave, as_it_was, for_others, gone = row
    return TablePlan(
        table=str(pair.name),
        insert=insert,
        update=update,
        keep=keep,
        leave=leave,
        as_it_was=as_it_was,
        for_others=for_others,
        gone=gone,
        recreate=pair.now is None and insert > 0,
        fires=_fired(pair, insert=insert > 0, update=update > 0),
    )


def _fired(pair: Pair, *, insert: bool, update: bool) -> tuple[str, ...]:
    return tuple(
        f"{trigger.name} ({'before' if trigger.before else 'after'}, {trigger.calls})"
        for trigger in (pair.now.triggers if pair.now else ())
        if (insert and trigger.on_insert) or (update and trigger.on_update)
    )


def _conflicts(sides: Sides, pairs: Sequence[Pair], policy: Policy) -> tuple[Conflict, ...]:
    found = []
    for pair in pairs:
        words = pair.key_text("t")
        rows = sides.past.execute(
            sql.SQL(
                "SELECT c.kind, s.action, count(*), min(c.detail), "
                "(array_agg({words} || CASE WHEN c.kind = 'taken' THEN ': ' || c.detail ELSE '' END))[:{examples}] "
                "FROM {conflicts} c JOIN {state} s ON s.row_id = c.row_id JOIN ONLY {table} t ON t.ctid = c.row_id "
                "WHERE c.number = {number} GROUP BY 1, 2 ORDER BY 1, 2"
            ).format(
                words=words,
                examples=sql.Literal(EXAMPLES),
                conflicts=CONFLICTS,
                state=pair.temporary("state"),
                table=pair.source,
                number=sql.Literal(pair.number),
            )
        ).fetchall()
        found += [
            Conflict(str(pair.name), kind, count, detail, tuple(examples), _BECOMES.get(action))
            for kind, action, count, detail, examples in rows
        ]
    return tuple(found)


_BECOMES: Mapping[str, str] = {
    "update": "updated to the past",
    "keep": "kept as it is now",
    "leave": "skipped",
}


def _notes(written: Sequence[Pair], tables: Sequence[TablePlan]) -> list[str]:
    notes = []
    for pair in written:
        gone = sum(table.gone for table in tables if table.table == str(pair.name))
        if gone:
            notes.append(
                f"{gone:,} of the past rows were deleted since and are not restored; restore them afterwards with "
                f"`tmi-ops recover rows --table {pair.name}`."
            )
        if pair.values_only:
            continue
        if pair.casts:
            notes.append(
                f"The type of {', '.join(pair.casts)} in {pair.name} has changed; past values are cast to the new type."
            )
        if pair.lost_columns:
            names = ", ".join(column.name for column in pair.lost_columns)
            notes.append(
                f"Columns of {pair.name} dropped since: {names}. Their values are not restored (--column restores a "
                "column)."
            )
        if pair.new_columns:
            names = ", ".join(column.name for column in pair.new_columns)
            notes.append(f"New columns of {pair.name} get their defaults in inserted rows: {names}.")
        if not pair.key:
            notes.append(f"{pair.name} has no key; its rows are identified by their whole content.")
    return notes


def _notes_of_server(sides: Sides) -> list[str]:
    row = sides.now.execute(
        """
        SELECT 1 FROM pg_catalog.pg_db_role_setting
        WHERE setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
          AND setrole IN (0, (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user))
          AND setconfig && ARRAY['default_transaction_read_only=on', 'default_transaction_read_only=true',
                                 'default_transaction_read_only=1', 'default_transaction_read_only=yes']
        """
    ).fetchone()
    database = sides.now.info.dbname
    return (
        [f"{database} is read-only (default_transaction_read_only); these rows are written nevertheless."]
        if row
        else []
    )


def _notes_of_dropped(sides: Sides, written: Sequence[Pair]) -> list[str]:
    lost = [pair.name for pair in written if pair.now is None]
    dropped = dropped_with(sides, lost)
    tables = " and ".join(map(str, lost))
    along = [words for words in dropped.texts if words not in {f"the table {name}" for name in lost}]
    comes = [f"Also restored with {tables}: {', '.join(along)}."] if along else []
    stays = [f"Dropped with {tables} and not restored: {', '.join(dropped.left)}."] if dropped.left else []
    return [*comes, *stays]
