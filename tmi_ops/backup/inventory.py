"""The objects of a database one by one, to compare a restored copy with its source.

A dump that restores every row may still have lost a trigger, a grant or a constraint; row counts do not show it.

PostgreSQL writes one kind of expression in two ways, which are normalized to one. `varchar_column IN ('a', 'b')` is
stored as `(ARRAY['a'::character varying, ...])::text[]`. When a dump is read back, the cast moves to each element:
`ARRAY[('a'::character varying)::text, ...]`. Both mean the same, and the second form is stable.
Source: https://www.postgresql.org/docs/current/sql-expressions.html#SQL-SYNTAX-ARRAY-CONSTRUCTORS
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

import psycopg

_ARRAY = "(ARRAY["
_CAST = re.compile(r"\]\)::([A-Za-z_][\w .\"]*(?:\([\d,]+\))?)\[\]")


def canonical(definition: str) -> str:
    """The definition as PostgreSQL writes it after a dump and restore; unchanged if it has no such expression."""
    position = definition.find(_ARRAY)
    while position >= 0:
        first = position + len(_ARRAY)
        end, commas = _end_of_array(definition, first)
        cast = _CAST.match(definition, end) if end >= 0 else None
        if cast:
            bounds = [first - 1, *commas, end]
            elements = [definition[a + 1 : b].strip() for a, b in itertools.pairwise(bounds)]
            pushed_down = ", ".join(f"({element})::{cast[1]}" for element in elements)
            definition = f"{definition[:position]}ARRAY[{pushed_down}]{definition[cast.end() :]}"
        position = definition.find(_ARRAY, position + 1)
    return definition


def _end_of_array(text: str, start: int) -> tuple[int, list[int]]:
    """Positions of the array's closing bracket and of the commas between elements; (-1, []) if it is never closed."""
    depth, quoted = 0, ""
    commas: list[int] = []
    for position in range(start, len(text)):
        character = text[position]
        if quoted:
            quoted = "" if character == quoted else quoted
        elif character in "'\"":
            quoted = character
        elif character in "[(":
            depth += 1
        elif character in "])":
            if depth == 0:
                return (position, commas) if character == "]" else (-1, [])
            depth -= 1
        elif character == "," and depth == 0:
            commas.append(position)
    return -1, []


# Each query returns (name, definition). Definitions are PostgreSQL's own (pg_get_*def) with search_path pinned, so
# names are qualified. A source and its copy share a major version, so the definitions are comparable.
_USER_SCHEMA = (
    "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'"
    " AND n.nspname NOT LIKE 'pg\\_temp%'"
)


def _not_of_extension(classid: str, oid: str) -> str:
    return (
        f"NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '{classid}'::regclass AND d.objid = {oid}"
        " AND d.deptype = 'e')"
    )


_RELATION = f"{_USER_SCHEMA} AND {_not_of_extension('pg_class', 'c.oid')}"

_QUERIES: Mapping[str, str] = {
    "schema": f"""
        SELECT n.nspname, pg_get_userbyid(n.nspowner)
        FROM pg_namespace n WHERE {_USER_SCHEMA} AND {_not_of_extension("pg_namespace", "n.oid")}""",
    "extension": "SELECT extname, extversion FROM pg_extension",
    "relation": f"""
        SELECT n.nspname || '.' || c.relname,
               concat_ws(' ', c.relkind, c.relpersistence, pg_get_userbyid(c.relowner), 'rls=', c.relrowsecurity,
                         array_to_string(c.reloptions, ','))
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {_RELATION} AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')""",
    "column": f"""
        SELECT n.nspname || '.' || c.relname || '.' || a.attname,
               concat_ws(' ', format_type(a.atttypid, a.atttypmod), 'notnull=', a.attnotnull,
                         'identity=', a.attidentity, 'generated=', a.attgenerated,
                         'default=', pg_get_expr(def.adbin, def.adrelid))
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_attrdef def ON def.adrelid = a.attrelid AND def.adnum = a.attnum
        WHERE {_RELATION} AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped""",
    "index": f"""
        SELECT n.nspname || '.' || c.relname, pg_get_indexdef(i.indexrelid)
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {_RELATION} AND i.indisvalid""",
    "constraint": f"""
        SELECT n.nspname || '.' || coalesce(r.relname || '.', '') || c.conname,
               concat_ws(' ', pg_get_constraintdef(c.oid), 'validated=', c.convalidated)
        FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
        LEFT JOIN pg_class r ON r.oid = c.conrelid
        WHERE {_USER_SCHEMA} AND {_not_of_extension("pg_constraint", "c.oid")}""",
    "trigger": f"""
        SELECT n.nspname || '.' || c.relname || '.' || t.tgname,
               concat_ws(' ', pg_get_triggerdef(t.oid), 'enabled=', t.tgenabled)
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {_RELATION} AND NOT t.tgisinternal""",
    "function": f"""
        SELECT n.nspname || '.' || c.proname || '(' || pg_get_function_identity_arguments(c.oid) || ')',
               pg_get_functiondef(c.oid)
        FROM pg_proc c JOIN pg_namespace n ON n.oid = c.pronamespace
        WHERE {_USER_SCHEMA} AND c.prokind IN ('f', 'p') AND {_not_of_extension("pg_proc", "c.oid")}""",
    "view": f"""
        SELECT n.nspname || '.' || c.relname, pg_get_viewdef(c.oid)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {_RELATION} AND c.relkind IN ('v', 'm')""",
    "enum": f"""
        SELECT n.nspname || '.' || t.typname, string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder)
        FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid JOIN pg_namespace n ON n.oid = t.typnamespace
        WHERE {_USER_SCHEMA} AND {_not_of_extension("pg_type", "t.oid")} GROUP BY 1""",
    "policy": f"""
        SELECT n.nspname || '.' || c.relname || '.' || p.polname,
               concat_ws(' ', p.polcmd, 'permissive=', p.polpermissive, 'using=', pg_get_expr(p.polqual, p.polrelid),
                         'check=', pg_get_expr(p.polwithcheck, p.polrelid), 'roles=',
                         (SELECT string_agg(pg_get_userbyid(r), ',' ORDER BY 1) FROM unnest(p.polroles) r))
        FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE {_RELATION}""",
    "grant": f"""
        SELECT n.nspname || '.' || c.relname || ' to '
               || CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(g.grantee) END,
               string_agg(g.privilege_type || CASE WHEN g.is_grantable THEN '*' ELSE '' END, ','
                          ORDER BY g.privilege_type)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
             aclexplode(coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char",
                                                      c.relowner))) g
        WHERE {_RELATION} AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') GROUP BY 1""",
}


def read_inventory(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """Each object of the database and its definition; keys are `kind name`.

    Output must be pinned (`pin_text_output`): definitions depend on search_path.
    """
    inventory: dict[str, str] = {}
    for kind, query in _QUERIES.items():
        for name, definition in connection.execute(query.encode()).fetchall():
            inventory[f"{kind} {name}"] = canonical(definition)
    return inventory


def differing_objects(source: Mapping[str, str], copy: Mapping[str, str]) -> list[str]:
    """How the copy's objects differ from the source's, one sentence per object; empty if they are equal."""
    differences = []
    for name in sorted(source.keys() | copy.keys()):
        if name not in copy:
            differences.append(f"{name} is missing from the restored copy")
        elif name not in source:
            differences.append(f"{name} is in the restored copy but was not in the source")
        elif source[name] != copy[name]:
            differences.append(f"{name} was {_short(source[name])}, in the restored copy it is {_short(copy[name])}")
    return differences


def _short(definition: str, length: int = 200) -> str:
    line = " ".join(definition.split())
    return line if len(line) <= length else f"{line[:length]}..."
