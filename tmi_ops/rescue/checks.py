"""Checks before the commit: as many rows as planned, each equal to the past, each with the rows it references."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tmi_ops.backup.snapshot import TableName
from tmi_ops.error_codes import Code
from tmi_ops.errors import RecoveryError
from tmi_ops.progress import Phase
from tmi_ops.rescue.links import Link
from tmi_ops.rescue.pairs import Pair, equal
from tmi_ops.rescue.planning import RescuePlan
from tmi_ops.rescue.staging import place_of, places, staged

_ROLLED_BACK = "Everything was rolled back; nothing was changed."


@dataclass(frozen=True)
class Altered:
    """How many rows differ from the past, and in which columns."""

    rows: int = 0
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Checked:
    """`altered` by table; `texts` describe what was checked."""

    altered: Mapping[str, Altered]
    texts: tuple[str, ...]


def check_rows(
    now: psycopg.Connection[Any],
    plan: RescuePlan,
    pairs: Mapping[TableName, Pair],
    written: Mapping[str, tuple[int, int]],
    required: Iterable[Link],
    stage_whole: Callable[[Pair], None],
    phase: Phase,
) -> Checked:
    """Compare the tables with the plan and the past.

    Args:
        written: (inserted, updated) by table.
        stage_whole: stages complete rows of a table, to see which columns differ.

    Raises:
        RecoveryError: a count, a row or a reference is not as planned.
    """
    altered = {}
    for table in (one for one in plan.tables if one.written):
        pair = next(pair for name, pair in pairs.items() if str(name) == table.table)
        if written[table.table] != (table.insert, table.update):
            inserted, updated = written[table.table]
            raise RecoveryError(
                f"The plan for {table.table} was {table.insert:,} inserts and {table.update:,} updates, but the server "
                f"did {inserted:,} and {updated:,}.",
                detail=_ROLLED_BACK,
                hint="check whether a trigger or rule skips rows"
                + (f": {', '.join(table.fires)}" if table.fires else ""),
                code=Code.RESULT_DIFFERS,
            )
        altered[table.table] = _altered(now, pair, table.written, stage_whole)
        phase.advance(1)
    _require_unaltered(plan, altered)
    references = _check_references(now, pairs, required)
    same = plan.rows - sum(one.rows for one in altered.values())
    return Checked(
        altered,
        (
            f"{plan.rows:,} rows written, as planned",
            f"{same:,} of them read back and equal to the past in every column",
            f"{references:,} foreign keys of these tables checked",
        ),
    )


def _altered(now: psycopg.Connection[Any], pair: Pair, written: int, stage_whole: Callable[[Pair], None]) -> Altered:
    if not pair.key:
        return _altered_by_content(now, pair)
    same_key = equal("l", pair.key, "s", [place_of(pair, name) for name in pair.key])
    joined = sql.SQL("FROM {} s JOIN ONLY {} l ON {}").format(staged(pair), pair.table, same_key)
    row = now.execute(
        sql.SQL("SELECT count(*) FILTER (WHERE {} = s.digest) {}").format(pair.digest("l"), joined)
    ).fetchone()
    same = int(row[0]) if row else 0
    if same == written:
        return Altered()
    stage_whole(pair)
    differs = sql.SQL(", ").join(
        sql.SQL("bool_or(ROW(l.{})::text <> ROW(s.{})::text)").format(
            sql.Identifier(column.name), sql.Identifier(place)
        )
        for column, place in zip(pair.columns, places(pair), strict=True)
    )
    found = now.execute(sql.SQL("SELECT {} {}").format(differs, joined)).fetchone() or ()
    columns = tuple(column.name for column, other in zip(pair.columns, found, strict=True) if other)
    return Altered(written - same, columns)


def _altered_by_content(now: psycopg.Connection[Any], pair: Pair) -> Altered:
    """Rows without a key: there must be as many of each content as the past had."""
    row = now.execute(
        sql.SQL(
            "SELECT coalesce(sum(greatest(s.rows - coalesce(l.rows, 0), 0)), 0) FROM "
            "(SELECT digest, max(nth) AS rows FROM {stage} GROUP BY digest) s LEFT JOIN "
            "(SELECT {digest} AS digest, count(*) AS rows FROM ONLY {table} n GROUP BY 1) l ON l.digest = s.digest"
        ).format(stage=pair.temporary("stage"), digest=pair.digest("n"), table=pair.table)
    ).fetchone()
    missing = int(row[0]) if row else 0
    return Altered(missing, ("its content",)) if missing else Altered()


def _require_unaltered(plan: RescuePlan, altered: Mapping[str, Altered]) -> None:
    changed = {table: one for table, one in altered.items() if one.rows}
    if not changed or plan.selection.accept_triggers:
        return
    table, one = next(iter(changed.items()))
    fires = next(planned.fires for planned in plan.tables if planned.table == table)
    raise RecoveryError(
        f"{one.rows:,} rows of {table} would differ from the past in {', '.join(one.columns)}"
        + (f", because of triggers: {', '.join(fires)}." if fires else "."),
        detail=_ROLLED_BACK,
        hint="accept the triggers' changes with --accept-triggers, or let the table's owner disable the trigger "
        "temporarily",
        code=Code.RESULT_DIFFERS,
    )


def _check_references(now: psycopg.Connection[Any], pairs: Mapping[TableName, Pair], required: Iterable[Link]) -> int:
    """Require that all rows referenced by written ones exist, also for NOT VALID keys. Returns the number of keys."""
    checked = 0
    for link in required:
        if link.child not in pairs:
            continue
        child = pairs[link.child]
        own = [place_of(child, column) for column in link.columns]
        row = now.execute(
            sql.SQL(
                "SELECT count(*) FROM {stage} s WHERE {given} AND NOT EXISTS (SELECT FROM {parent} p WHERE {same})"
            ).format(
                stage=staged(child),
                given=sql.SQL(" AND ").join(sql.SQL("s.{} IS NOT NULL").format(sql.Identifier(one)) for one in own),
                parent=link.parent.identifier,
                same=equal("p", link.referenced, "s", own),
            )
        ).fetchone()
        if row is None or row[0]:
            raise RecoveryError(
                f"{row[0] if row else 'Some'} rows of {link.child} would reference rows of {link.parent} that do not "
                f"exist ({', '.join(link.columns)}).",
                detail=_ROLLED_BACK,
                hint="run the same command again to make a new plan",
                code=Code.RESULT_DIFFERS,
            )
        checked += 1
    return checked
