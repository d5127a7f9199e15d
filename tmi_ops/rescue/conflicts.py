"""What stands in the way of rows that shall come back, asked of the living server, and what a policy makes of it.

Four kinds: `changed` (the row exists with other content), `refused` (it does, and the table's triggers or rules let
nobody change it), `taken` (another row has its unique value now), `orphan` (what it refers to is gone on both sides).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import psycopg
from psycopg import sql

from tmi_ops.backup.snapshot import TableName
from tmi_ops.rescue.comparing import copy_across
from tmi_ops.rescue.links import Link
from tmi_ops.rescue.pairs import Pair, equal
from tmi_ops.rescue.selection import Policy
from tmi_ops.rescue.session import Sides
from tmi_ops.rescue.shape import UniqueIndex
from tmi_ops.rescue.staging import place_of, places, stage

Kind = Literal["changed", "refused", "taken", "orphan"]
CONFLICTS = sql.Identifier("pg_temp", "rescue_conflicts")

# What becomes of a row that exists with other content. One that others only refer to is `needed`: it is there, enough.
_OF_CHANGED: Mapping[Policy, str] = {
    "stop": "conflict",
    "keep-current": "keep",
    "take-past": "update",
    "skip": "leave",
}
_FIRST_ACTION = sql.SQL(
    "UPDATE {state} SET action = CASE WHEN state = 'deleted' THEN 'insert' WHEN reason = 'parent' THEN 'needed' "
    "ELSE {of_changed} END"
)
_NOTE_CHANGED = sql.SQL(
    "INSERT INTO {conflicts} SELECT {number}, row_id, {kind}, {detail} FROM {state} "
    "WHERE state = 'changed' AND reason <> 'parent'"
)
_TAKEN = sql.SQL(
    "SELECT DISTINCT {number}, s.row_id, 'taken', {detail} FROM (SELECT g.row_id, {staged_key} x.* FROM {stage} g "
    "CROSS JOIN LATERAL (SELECT {staged} FROM (SELECT {renamed}) r {where}) x) s JOIN (SELECT {living_key} {living} "
    "FROM ONLY {table} n {where}) l ON {same} WHERE {other_row}"
)
_ORPHAN = sql.SQL(
    "SELECT {number}, s.row_id, 'orphan', {detail} FROM {stage} s WHERE {given} AND NOT EXISTS "
    "(SELECT FROM {living} p WHERE {living_same})"
)
_OR_STAGED = sql.SQL(" AND NOT EXISTS (SELECT FROM {stage} p WHERE {same})")
_IN_CONFLICT = sql.SQL(
    "UPDATE {state} SET action = {action} WHERE row_id IN (SELECT row_id FROM {conflicts} WHERE number = {number} "
    "AND kind IN ('taken', 'orphan')) AND action IN ('insert', 'update')"
)
_LEFT_WITH_PARENT = sql.SQL(
    "UPDATE {child_state} s SET action = 'leave' FROM ONLY {child} c, ONLY {parent} p, {parent_state} q WHERE "
    "s.action IN ('insert', 'update') AND c.ctid = s.row_id AND {same} AND q.row_id = p.ctid AND q.action = 'leave' "
    "{gone}"
)


def decide(past: psycopg.Connection[Any], now: psycopg.Connection[Any], pair: Pair, policy: Policy) -> None:
    """Give each row of `state` its first action, and note those that exist with other content as conflicts."""
    refusal = _refusal_of_updates(past, now, pair)
    of_changed = _OF_CHANGED[policy] if refusal is None or policy != "take-past" else "conflict"
    past.execute(_FIRST_ACTION.format(state=pair.temporary("state"), of_changed=sql.Literal(of_changed)))
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
    """Stage the rows and note which of them the living server's unique indexes and foreign keys would refuse."""
    past, now = sides.past, sides.now
    by_name = {pair.name: pair for pair in pairs}
    required = tuple(required)
    for pair in pairs:
        stage(past, now, pair, _looked_at(pair, required))
    for pair in pairs:
        for index in pair.now.uniques if pair.now else ():
            if set(index.expressions) != set(pair.key):
                copy_across(now, _taken(pair, index), past, CONFLICTS)
    for link in required:
        if link.child in by_name:
            copy_across(now, _orphans(by_name, link, exists=link.parent in sides.living), past, CONFLICTS)


def _looked_at(pair: Pair, required: Iterable[Link]) -> frozenset[str]:
    """The columns that unique indexes and foreign keys look at."""
    names = set(pair.key)
    for index in pair.now.uniques if pair.now else ():
        names |= _named_in(pair, " ".join([*index.expressions, index.predicate or ""]))
    for link in required:
        names |= set(link.columns) if link.child == pair.name else set()
        names |= set(link.referenced) if pair.name in link.parents else set()
    return frozenset(names)


def _named_in(pair: Pair, expressions: str) -> set[str]:
    """Columns that SQL may speak of: rather too many, and all where it could mean the whole row."""
    means_row = pair.name.name in expressions or ".*" in expressions
    return {column.name for column in pair.columns if means_row or column.name in expressions.replace('""', '"')}


def apply_policy(past: psycopg.Connection[Any], pairs: Sequence[Pair], links: Iterable[Link], policy: Policy) -> None:
    """Leave out, or mark as unsolved, what cannot come; and leave out what needs a row that was left out."""
    action = "leave" if policy in ("keep-current", "skip") else "conflict"
    for pair in pairs:
        past.execute(
            _IN_CONFLICT.format(
                state=pair.temporary("state"),
                action=sql.Literal(action),
                conflicts=CONFLICTS,
                number=sql.Literal(pair.number),
            )
        )
    by_name = {pair.name: pair for pair in pairs}
    relevant = [
        (link, by_name[link.child], by_name[parent])
        for link in links
        for parent in link.parents
        if link.child in by_name and parent in by_name and (link.enforced or policy == "skip")
    ]
    while any(_leave_with_parent(past, link, child, parent, policy) for link, child, parent in relevant):
        pass


def _leave_with_parent(past: psycopg.Connection[Any], link: Link, child: Pair, parent: Pair, policy: Policy) -> bool:
    # A parent that exists, changed, still carries its children; only `skip` leaves these out, too.
    gone = sql.SQL("") if policy == "skip" else sql.SQL("AND q.state = 'deleted'")
    done = past.execute(
        _LEFT_WITH_PARENT.format(
            child_state=child.temporary("state"),
            parent_state=parent.temporary("state"),
            child=child.table,
            parent=parent.table,
            same=equal("c", link.columns, "p", link.referenced),
            gone=gone,
        )
    )
    return done.rowcount > 0


def _taken(pair: Pair, index: UniqueIndex) -> sql.Composed:
    """Staged rows whose unique value another living row has, one that this rescue does not change itself."""
    numbered = [f"e{number}" for number in range(1, len(index.expressions) + 1)]
    expressions = sql.SQL(", ").join(
        sql.SQL("({}) AS {}").format(sql.SQL(expression), sql.Identifier(name))
        for expression, name in zip(index.expressions, numbered, strict=True)
    )
    comparison = sql.SQL("s.{0} IS NOT DISTINCT FROM l.{0}" if index.nulls_equal else "s.{0} = l.{0}")
    key_of_stage = sql.SQL("").join(
        sql.SQL("g.{} AS {}, ").format(sql.Identifier(place_of(pair, name)), sql.Identifier(place))
        for name, place in zip(pair.key, pair.places, strict=True)
    )
    same_key = equal("s", pair.places, "l", pair.places) if pair.key else sql.SQL("false")
    updated_key = [place_of(pair, name) for name in pair.key]
    not_updated = (
        sql.SQL(" AND NOT EXISTS (SELECT FROM {} u WHERE u.action = 'update' AND {})").format(
            pair.temporary("stage"), equal("u", updated_key, "l", pair.places)
        )
        if pair.key
        else sql.SQL("")
    )
    words = sql.SQL("concat_ws(', ', {})").format(
        sql.SQL(", ").join(sql.Identifier("l", place) for place in pair.places)
    )
    return _TAKEN.format(
        number=sql.Literal(pair.number),
        detail=sql.SQL("{} || {}").format(
            sql.Literal(f"its value in {index.name} belongs to another row now: "),
            words if pair.key else sql.Literal("one without a key"),
        ),
        staged_key=key_of_stage,
        stage=pair.temporary("stage"),
        staged=expressions,
        renamed=sql.SQL(", ").join(
            sql.SQL("g.{} AS {}").format(sql.Identifier(place), sql.Identifier(column.name))
            for place, column in zip(places(pair), pair.columns, strict=True)
        ),
        where=sql.SQL("WHERE {}").format(sql.SQL(index.predicate)) if index.predicate else sql.SQL(""),
        living_key=sql.SQL("{},").format(pair.keys_as_places("n")) if pair.key else sql.SQL(""),
        living=expressions,
        table=pair.table,
        same=sql.SQL(" AND ").join(comparison.format(sql.Identifier(name)) for name in numbered),
        other_row=sql.SQL("NOT ({})").format(same_key) + not_updated,
    )


def _orphans(pairs: Mapping[TableName, Pair], link: Link, *, exists: bool) -> sql.Composed:
    """Staged rows that refer to a row which neither the living table, where it exists, nor the rescue has."""
    child = pairs[link.child]
    own = [place_of(child, column) for column in link.columns]
    query = _ORPHAN.format(
        number=sql.Literal(child.number),
        detail=sql.Literal(f"the row of {link.parent} that its {', '.join(link.columns)} refers to is gone"),
        stage=child.temporary("stage"),
        given=sql.SQL(" AND ").join(sql.SQL("s.{} IS NOT NULL").format(sql.Identifier(place)) for place in own),
        living=sql.SQL("{}").format(link.parent.identifier) if exists else sql.SQL("(SELECT WHERE false)"),
        living_same=equal("p", link.referenced, "s", own) if exists else sql.SQL("true"),
    )
    for parent in (pairs[name] for name in link.parents if name in pairs):
        referenced = [place_of(parent, column) for column in link.referenced]
        query += _OR_STAGED.format(stage=parent.temporary("stage"), same=equal("p", referenced, "s", own))
    return query


def _refusal_of_updates(past: psycopg.Connection[Any], now: psycopg.Connection[Any], pair: Pair) -> str | None:
    """Why the living table lets no row be changed; None where it does, or nothing has to be.

    One row is set to what it is, and that is taken back at once: what triggers do, only they know.
    """
    triggers = [trigger for trigger in (pair.now.triggers if pair.now else ()) if trigger.on_update]
    changed = sql.SQL("SELECT FROM {} WHERE state = 'changed' AND reason <> 'parent' LIMIT 1")
    columns = [column for column in pair.columns if column.name not in pair.key and column.identity != "a"]
    if not triggers or not columns or past.execute(changed.format(pair.temporary("state"))).fetchone() is None:
        return None
    assignments = sql.SQL(", ").join(sql.SQL("{0} = {0}").format(sql.Identifier(column.name)) for column in columns)
    one_row = sql.SQL("UPDATE ONLY {0} SET {1} WHERE ctid = (SELECT ctid FROM ONLY {0} LIMIT 1)")
    names = " and ".join(trigger.name for trigger in triggers)
    try:
        with now.transaction(force_rollback=True):
            now.execute("SET LOCAL search_path TO DEFAULT")
            now.execute("SET LOCAL lock_timeout = '1s'")
            if now.execute(one_row.format(pair.table, assignments)).rowcount == 0:
                return f"{names} of {pair.name} leaves updates out"
    except psycopg.errors.LockNotAvailable:
        return None  # the row is just being changed, so rows can be
    except psycopg.Error as error:
        return f"{names} of {pair.name} refuses updates: {str(error).splitlines()[0]}"
    return None
