"""Normalizes SQL statements by their parse trees, so that equivalent statements compare as equal.

PostgreSQL may print a definition differently after a restore. Its parse tree, without text positions, stays the same,
except for the few rewrites below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import postgast

from tmi_ops.postgres.versions import NOT_NULL_NAMED, VIEW_COLUMNS_BARE

_POSITIONS = frozenset({"location", "stmt_location", "stmt_len", "list_start", "list_end", "rexpr_list_start"})
_POSITIONS |= {"rexpr_list_end"}
# Items of FROM that stand for one table, and their default names.
_UNNAMED_SOURCES = {"range_var": "", "range_function": "", "range_subselect": "", "range_table_func": "xmltable"}
_UNNAMED_SOURCES |= {"json_table": "json_table"}


@dataclass(frozen=True)
class Majors:
    """The major versions of PostgreSQL that the source's and the copy's definitions were printed by."""

    source: int
    copy: int

    def crosses(self, first: int) -> bool:
        """Whether only one of them is older than `first`."""
        return min(self.source, self.copy) < first <= max(self.source, self.copy)


def normal_form(statements: str, majors: Majors, *, any_order: bool = False) -> tuple[bytes, ...]:
    """The normal form of each statement; the text itself if PostgreSQL's parser rejects it.

    Args:
        any_order: for statements such as grants, whose order PostgreSQL does not preserve.
    """
    try:
        tree = postgast.parse(statements)
    except postgast.PgQueryError:
        return (statements.encode(errors="replace"),)
    forms = []
    for raw in tree.stmts:
        _rewrite(raw.stmt, majors)
        forms.append(raw.stmt.SerializeToString(deterministic=True))
    return tuple(sorted(forms) if any_order else forms)


def _rewrite(message: Any, majors: Majors) -> None:
    """Normalize a tree in place, children first."""
    for field, value in message.ListFields():
        if field.name in _POSITIONS:
            message.ClearField(field.name)
        elif field.type == field.TYPE_MESSAGE:
            for child in value if _is_repeated(value) else (value,):
                _rewrite(child, majors)
    for rule in _RULES.get(message.DESCRIPTOR.name, ()):
        rule(message, majors)


def _is_repeated(value: Any) -> bool:
    return not hasattr(value, "DESCRIPTOR")


def _sorted(container: Any) -> None:
    ordered = sorted((_copy(item) for item in container), key=lambda item: item.SerializeToString(deterministic=True))
    del container[:]
    container.extend(ordered)


def _copy(message: Any) -> Any:
    copied = type(message)()
    copied.CopyFrom(message)
    return copied


def _roles_in_any_order(policy: Any, _: Majors) -> None:
    _sorted(policy.roles)


def _rights_in_any_order(grant: Any, _: Majors) -> None:
    _sorted(grant.privileges)
    _sorted(grant.grantees)


def _inherited_columns_in_any_order(table: Any, _: Majors) -> None:
    """PostgreSQL puts inherited columns first, whatever their order was."""
    if table.inh_relations and not table.HasField("partbound"):
        _sorted(table.table_elts)


def _cast_of_array_to_elements(node: Any, _: Majors) -> None:
    """`ARRAY[a, b]::text[]` is printed as `ARRAY[a::text, b::text]` after a restore."""
    if node.WhichOneof("node") != "type_cast":
        return
    cast = node.type_cast
    if cast.arg.WhichOneof("node") != "a_array_expr" or not cast.type_name.array_bounds:
        return
    array, element_type = _copy(cast.arg.a_array_expr), _copy(cast.type_name)
    if not array.elements:
        return
    del element_type.array_bounds[:]
    for element in array.elements:
        inner = _copy(element)
        element.type_cast.arg.CopyFrom(inner)
        element.type_cast.type_name.CopyFrom(element_type)
    node.a_array_expr.CopyFrom(array)


def _columns_of_one_source_bare(select: Any, majors: Majors) -> None:
    """PostgreSQL 16 and later print the columns of a view on one table, function or the like without its name."""
    if not majors.crosses(VIEW_COLUMNS_BARE) or len(select.from_clause) != 1:
        return
    name = _name_of_source(select.from_clause[0])
    for column in messages(select, "ColumnRef"):
        if name and len(column.fields) > 1 and column.fields[0].string.sval == name:
            del column.fields[0]


def _name_of_source(item: Any) -> str:
    """The qualifier of an item's columns in FROM; "" for a join, whose columns keep their tables' names."""
    kind = item.WhichOneof("node")
    source = getattr(item, kind)
    if kind == "range_table_sample":
        return _name_of_source(source.relation)
    if kind not in _UNNAMED_SOURCES:
        return ""
    if source.HasField("alias"):
        return str(source.alias.aliasname)
    return str(source.relname) if kind == "range_var" else _UNNAMED_SOURCES[kind]


def _default_null_unsaid(table: Any, _: Majors) -> None:
    """DEFAULT NULL equals no default, unless it overrides a default of a parent or a domain."""
    if table.inh_relations:
        return
    for element in table.table_elts:
        if element.WhichOneof("node") == "column_def" and _has_own_type(element.column_def):
            said = element.column_def.constraints
            kept = [_copy(item) for item in said if not _is_default_null(item.constraint)]
            del said[:]
            said.extend(kept)


def _has_own_type(column: Any) -> bool:
    """Whether a column's type is built-in, so not a domain: others are printed with their schema."""
    names = [name.string.sval for name in column.type_name.names]
    return len(names) == 1 or names[:1] == ["pg_catalog"]


def _is_default_null(constraint: Any) -> bool:
    default = constraint.contype == postgast.pg_query_pb2.CONSTR_DEFAULT
    return bool(default and constraint.raw_expr.WhichOneof("node") == "a_const" and constraint.raw_expr.a_const.isnull)


def messages(message: Any, name: str) -> Iterator[Any]:
    """All nodes of one kind in a tree."""
    if message.DESCRIPTOR.name == name:
        yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for child in value if _is_repeated(value) else (value,):
                yield from messages(child, name)


def _not_null_without_name(constraint: Any, majors: Majors) -> None:
    """PostgreSQL 18 and later name NOT NULL constraints, and print names that are not the default."""
    if majors.crosses(NOT_NULL_NAMED) and constraint.contype == postgast.pg_query_pb2.CONSTR_NOTNULL:
        constraint.ClearField("conname")


_RULES: dict[str, tuple[Callable[[Any, Majors], None], ...]] = {
    "CreatePolicyStmt": (_roles_in_any_order,),
    "GrantStmt": (_rights_in_any_order,),
    "CreateStmt": (_default_null_unsaid, _inherited_columns_in_any_order),
    "Node": (_cast_of_array_to_elements,),
    "SelectStmt": (_columns_of_one_source_bare,),
    "Constraint": (_not_null_without_name,),
}


def calls_functions(statements: str) -> bool:
    """Whether a CHECK calls a function that is not built-in; pg_dump qualifies the names of others."""
    try:
        tree = postgast.parse(statements)
    except postgast.PgQueryError:
        return True
    checks = (node for node in messages(tree, "Constraint") if node.contype == postgast.pg_query_pb2.CONSTR_CHECK)
    return any(len(call.funcname) > 1 and call.funcname[0].string.sval != "pg_catalog"
               for check in checks for call in messages(check, "FuncCall"))  # fmt: skip
