"""Conflicts of restored rows on the live server, and how a policy resolves them.

`changed`: the row exists with other content. `refused`: the same, but the table's triggers or rules do not allow
updates. `taken`: its unique value now belongs to another row. `orphan`: the row it references exists neither now nor in
the past. `unfit`: a value does not fit the column's current type. `barred`: a newer CHECK or NOT NULL forbids it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import psycopg
from psycopg import sql

from tmi_ops.backup.snapshot import TableName
from tmi_ops.errors import first_line
from tmi_ops.rescue.barriers import rehearse_update
from tmi_ops.rescue.casting import unfit_columns
from tmi_ops.rescue.clashes import taken, twins, would_be
from tmi_ops.rescue.copying import copy_across
from tmi_ops.rescue.exchange import CannotStepAsideError, step_aside
from tmi_ops.rescue.links import Link
from tmi_ops.rescue.pairs import Pair, equal
from tmi_ops.rescue.recreation import dropped_keys
from tmi_ops.rescue.selection import Policy
from tmi_ops.rescue.session import Sides
from tmi_ops.rescue.shape import UniqueIndex
from tmi_ops.rescue.staging import looked_at_columns, never_null_now, place_of, stage, staged

Kind = Literal["changed", "refused", "taken", "orphan", "unfit", "barred"]
CONFLICTS = sql.Identifier("pg_temp", "rescue_conflicts")

# The action for a row that exists with other content. A row that is only referenced is `needed`: it need only exist.
_OF_CHANGED: Mapping[Policy, str] = {
    "stop": "conflict",
    "keep-current": "keep",
    "take-past": "update",
    "skip": "leave",
}
_ACTION_OF_CHANGED = sql.SQL("UPDATE {} SET action = {} WHERE state = 'changed' AND reason <> 'parent'")
_NOTE_CHANGED = sql.SQL(
    "INSERT INTO {conflicts} SELECT {number}, row_id, {kind}, {detail} FROM {state} "
    "WHERE state = 'changed' AND reason <> 'parent'"
)
_ORPHAN = sql.SQL(
    "SELECT {number}, s.row_id, 'orphan', {detail} FROM {stage} s WHERE {given} AND NOT EXISTS "
    "(SELECT FROM {living} p WHERE {living_same})"
)
_OR_STAGED = sql.SQL(" AND NOT EXISTS (SELECT FROM {stage} p WHERE {same})")
_IN_CONFLICT = sql.SQL(
    "UPDATE {state} SET action = {action} WHERE row_id IN (SELECT row_id FROM {conflicts} WHERE number = {number} "
    "AND kind IN ('taken', 'orphan', 'unfit', 'barred')) AND action IN ('insert', 'update')"
)
_LEFT_WITH_PARENT = sql.SQL(
    "UPDATE {child_state} s SET action = 'leave' FROM ONLY {child} c, ONLY {parent} p, {parent_state} q WHERE "
    "s.action IN ('insert', 'update') AND c.ctid = s.row_id AND {same} AND q.row_id = p.ctid AND q.action = 'leave' "
    "{gone}"
)


def decide(past: psycopg.Connection[Any], now: psycopg.Connection[Any], pair: Pair, policy: Policy) -> None:
    """Set the action for rows that exist with other content, and record them as conflicts.

    They are not conflicts if only values are restored, because those are the rows to update.
    """
    refusal = _refusal_of_updates(past, now, pair)
    of_changed = _OF_CHANGED[policy] if refusal is None or policy != "take-past" else "conflict"
    if pair.values_only:
        of_changed = "update" if refusal is None else "leave" if policy in ("keep-current", "skip") else "conflict"
    past.execute(_ACTION_OF_CHANGED.format(pair.temporary("state"), sql.Literal(of_changed)))
    if pair.values_only and refusal is None:
        return
    past.execute(
        _NOTE_CHANGED.format(
            conflicts=CONFLICTS,
            number=sql.Literal(pair.number),
            kind=sql.Literal("changed" if refusal is None else "refused"),
            detail=sql.Literal(refusal or "it exists with other content"),
            state=pair.temporary("state"),
        )
    )


def find_obstacles(sides: Sides, pairs: Sequence[Pair], required: Iterable[Link]) -> None:
    """Stage the rows, and record which of them the live server's constraints would reject."""
    past, now = sides.past, sides.now
    by_name = {pair.name: pair for pair in pairs}
    required = tuple(required)
    looked_at = (*required, *dropped_keys(sides, [pair for pair in pairs if pair.now is None]))
    for pair in pairs:
        needed = looked_at_columns(pair, looked_at)
        stage(past, now, pair, joined=needed, needed=needed)
    for pair in pairs:
        _find_unfit(past, pair)
        for query in _barriers_of(pair):
            copy_across(now, query, past, CONFLICTS)
        _try_exchanges(past, now, pair, required)
    for link in required:
        if link.child in by_name:
            copy_across(now, _orphans(by_name, link, exists=link.parent in sides.living), past, CONFLICTS)


def _find_unfit(past: psycopg.Connection[Any], pair: Pair) -> None:
    """Rows with a value that does not fit the column's current type."""
    for name, is_unfit in unfit_columns(pair, "t"):
        kind = pair.now.type_of(name) if pair.now else None
        past.execute(
            sql.SQL(
                "INSERT INTO {} SELECT {}, s.row_id, 'unfit', {} FROM {} s JOIN ONLY {} t ON t.ctid = s.row_id "
                "WHERE {} AND s.action IN ('insert', 'update')"
            ).format(
                CONFLICTS,
                sql.Literal(pair.number),
                sql.Literal(f"its {name} does not fit the column's current type {kind}"),
                pair.temporary("state"),
                pair.source,
                is_unfit,
            )
        )


def _barriers_of(pair: Pair) -> Iterator[sql.Composed]:
    """Queries for staged rows that the live table's constraints forbid."""
    if pair.now is None:
        return
    known = {column.name for column in pair.columns}
    for index in pair.now.uniques:
        if known & set(index.columns) and not (set(index.columns) == set(pair.key) and index.predicate is None):
            yield taken(pair, index)
            # Past rows were unique; with cast values, or columns from the live row, they may not be.
            if not _is_as_then(pair, index) or not set(index.columns) <= known:
                yield twins(pair, index)
    for check in pair.now.checks:
        if check not in pair.then.checks and known & set(check.columns):
            yield _barred(pair, check.columns, check.expression, f"the constraint {check.name} now forbids it")
    for column in pair.columns:
        if never_null_now(pair, column.name):
            expression = sql.SQL("{} IS NOT NULL").format(sql.Identifier(column.name)).as_string(None)
            yield _barred(pair, [column.name], expression, f"its {column.name} must not be NULL now")


def _is_as_then(pair: Pair, index: UniqueIndex) -> bool:
    was = next((one for one in pair.then.uniques if one.name == index.name), None)
    return was is not None and replace(was, waits=index.waits) == index and not set(index.columns) & set(pair.casts)


def _barred(pair: Pair, needed: Sequence[str], expression: str, detail: str) -> sql.Composed:
    source, columns = would_be(pair, needed)
    return sql.SQL(
        "SELECT {}, g.row_id, 'barred', {} FROM {} CROSS JOIN LATERAL (SELECT ({}) AS holds FROM (SELECT {}) r) x "
        "WHERE NOT x.holds"
    ).format(sql.Literal(pair.number), sql.Literal(detail), source, sql.SQL(expression), columns)


def _try_exchanges(
    past: psycopg.Connection[Any], now: psycopg.Connection[Any], pair: Pair, required: Iterable[Link]
) -> None:
    """Test whether rows that exchange unique values can step aside; this is rolled back."""
    changes = sql.SQL("SELECT FROM {} WHERE action = 'update' LIMIT 1").format(pair.temporary("state"))
    if pair.now is None or not pair.key or past.execute(changes).fetchone() is None:
        return
    try:
        with now.transaction(force_rollback=True):
            now.execute("SET LOCAL search_path TO DEFAULT")
            now.execute("SET LOCAL lock_timeout = '1s'")
            step_aside(now, pair, required)
    except (psycopg.errors.LockNotAvailable, psycopg.errors.SerializationFailure):
        return  # another session is changing such rows, so updates are possible
    except (psycopg.Error, CannotStepAsideError) as error:
        past.execute(
            sql.SQL("INSERT INTO {} SELECT {}, row_id, 'taken', {} FROM {} WHERE action = 'update'").format(
                CONFLICTS,
                sql.Literal(pair.number),
                sql.Literal(f"rows exchange unique values, and none can step aside: {first_line(error)}"),
                pair.temporary("state"),
            )
        )


def apply_policy(past: psycopg.Connection[Any], pairs: Sequence[Pair], links: Iterable[Link], policy: Policy) -> None:
    """Skip rows that cannot be restored, or mark them unresolved; and skip rows that reference a skipped row."""
    action = "leave" if policy in ("keep-current", "skip") else "conflict"
    for pair in pairs:
        past.execute(_in_conflict(pair, action))
    by_name = {pair.name: pair for pair in pairs}
    relevant = [
        (link, by_name[link.child], by_name[parent])
        for link in links
        for parent in link.parents
        if link.child in by_name and parent in by_name and (link.enforced or policy == "skip")
    ]
    while any(_leave_with_parent(past, link, child, parent, policy) for link, child, parent in relevant):
        pass


def skip_held_values(sides: Sides, pairs: Iterable[Pair]) -> None:
    """Skip rows whose unique value is held by a row that was skipped itself, and so on.

    Only if single values are restored: otherwise a policy that skips rows updates none.
    """
    past, now = sides.past, sides.now
    for pair in pairs:
        if pair.now is None or not pair.values_only:
            continue
        left = pair.temporary("left")
        now.execute(sql.SQL("CREATE TEMP TABLE {} (row_id tid) ON COMMIT DROP").format(left))
        query = sql.SQL("SELECT row_id FROM {} WHERE action = 'leave'").format(pair.temporary("state"))
        while _unstaged(past, now, pair, query, left):
            for index in pair.now.uniques:
                if set(index.columns) & {column.name for column in pair.columns} - set(pair.key):
                    copy_across(now, taken(pair, index), past, CONFLICTS)
            past.execute(_in_conflict(pair, "leave"))


def _unstaged(
    past: psycopg.Connection[Any],
    now: psycopg.Connection[Any],
    pair: Pair,
    query: sql.Composed,
    left: sql.Identifier,
) -> int:
    """Remove skipped rows from the staged rows. Returns how many there were."""
    copy_across(past, query, now, left)
    return now.execute(
        sql.SQL("DELETE FROM {} s USING {} l WHERE s.row_id = l.row_id").format(pair.temporary("stage"), left)
    ).rowcount


def _in_conflict(pair: Pair, action: str) -> sql.Composed:
    return _IN_CONFLICT.format(
        state=pair.temporary("state"),
        action=sql.Literal(action),
        conflicts=CONFLICTS,
        number=sql.Literal(pair.number),
    )


def _leave_with_parent(past: psycopg.Connection[Any], link: Link, child: Pair, parent: Pair, policy: Policy) -> bool:
    # A changed parent still exists, so its children can be restored; only `skip` skips them, too.
    gone = sql.SQL("") if policy == "skip" else sql.SQL("AND q.state = 'deleted'")
    done = past.execute(
        _LEFT_WITH_PARENT.format(
            child_state=child.temporary("state"),
            parent_state=parent.temporary("state"),
            child=child.source,
            parent=parent.source,
            same=_refers(link, child, parent),
            gone=gone,
        )
    )
    return done.rowcount > 0


def _refers(link: Link, child: Pair, parent: Pair) -> sql.Composed:
    if not (child.casts or parent.casts):
        return equal("c", link.columns, "p", link.referenced)
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(child.text_then("c", own), parent.text_then("p", referred))
        for own, referred in zip(link.columns, link.referenced, strict=True)
    )


def _orphans(pairs: Mapping[TableName, Pair], link: Link, *, exists: bool) -> sql.Composed:
    """Staged rows that reference a row which neither the live table nor the rescue has."""
    child = pairs[link.child]
    own = [place_of(child, column) for column in link.columns]
    query = _ORPHAN.format(
        number=sql.Literal(child.number),
        detail=sql.Literal(f"the row of {link.parent} that its {', '.join(link.columns)} references does not exist"),
        stage=staged(child),
        given=sql.SQL(" AND ").join(sql.SQL("s.{} IS NOT NULL").format(sql.Identifier(place)) for place in own),
        living=sql.SQL("{}").format(link.parent.identifier) if exists else sql.SQL("(SELECT WHERE false)"),
        living_same=equal("p", link.referenced, "s", own) if exists else sql.SQL("true"),
    )
    for parent in (pairs[name] for name in link.parents if name in pairs):
        referenced = [place_of(parent, column) for column in link.referenced]
        query += _OR_STAGED.format(stage=staged(parent), same=equal("p", referenced, "s", own))
    return query


def _refusal_of_updates(past: psycopg.Connection[Any], now: psycopg.Connection[Any], pair: Pair) -> str | None:
    """Why the live table does not allow updates; None if it does, or none are needed."""
    triggers = [trigger for trigger in (pair.now.triggers if pair.now else ()) if trigger.on_update]
    changed = sql.SQL("SELECT FROM {} WHERE state = 'changed' AND reason <> 'parent' LIMIT 1")
    columns = [column for column in pair.columns if column.name not in pair.key and column.identity != "a"]
    if not triggers or not columns or past.execute(changed.format(pair.temporary("state"))).fetchone() is None:
        return None
    names = " and ".join(trigger.name for trigger in triggers)
    try:
        if rehearse_update(now, pair.table, [column.name for column in columns]) == 0:
            return f"{names} of {pair.name} skips updates"
    except psycopg.Error as error:
        return f"{names} of {pair.name} rejects updates: {first_line(error)}"
    return None
