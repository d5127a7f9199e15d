"""Loads a dump into a live server as a role that can do nothing else there.

A load calls functions (of CHECK constraints, domains, indexes, generated columns) written by anybody who could create a
table at the source, and the statements of a dump are data from the store. So the load uses a temporary ordinary role
that owns the new database:

1. It loads everything except owners and privileges, so that all code of the dump runs as this role.
2. Then the connecting role sets owners and privileges, with statements that PostgreSQL's parser has confirmed to be
   nothing else. These run no code of the dump.

Objects that only a superuser can create are listed before the load; the connecting role loads them if the user asks for
it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import postgast
import psycopg
from psycopg import sql
from pydantic import SecretStr

from tmi_ops.backup.archive.toc import Toc, TocEntry
from tmi_ops.backup.snapshot import pin_text_output
from tmi_ops.errors import DatabaseError, RecoveryError
from tmi_ops.postgres.connections import connect
from tmi_ops.recovery.trees import messages
from tmi_ops.settings import PostgresSettings

# Kinds of objects that only a superuser can create.
_OF_SUPERUSERS = frozenset(
    {
        "ACCESS METHOD",
        "EVENT TRIGGER",
        "FOREIGN DATA WRAPPER",
        "OPERATOR CLASS",
        "OPERATOR FAMILY",
        "PROCEDURAL LANGUAGE",
        "SECURITY LABEL",
        "SHELL TYPE",
        "SUBSCRIPTION",
        "TEXT SEARCH PARSER",
        "TEXT SEARCH TEMPLATE",
        "TRANSFORM",
        "USER MAPPING",
    }
)
# Kinds of objects whose owner must be a superuser.
_SUPERUSER_OWNED = frozenset({"EVENT TRIGGER", "FOREIGN DATA WRAPPER"})
_LARGE_OBJECTS = "BLOB METADATA"
# Kinds for which pg_restore writes ALTER ... OWNER TO.
_OWNED = frozenset(
    {
        "AGGREGATE", _LARGE_OBJECTS, "COLLATION", "CONVERSION", "DOMAIN", "FOREIGN TABLE", "FUNCTION",
        "MATERIALIZED VIEW", "OPERATOR", "PROCEDURE", "PUBLICATION", "SCHEMA", "SEQUENCE", "SERVER", "STATISTICS",
        "TABLE", "TEXT SEARCH CONFIGURATION", "TEXT SEARCH DICTIONARY", "TYPE", "VIEW",
    }
)  # fmt: skip
_RIGHTS = frozenset({"ACL", "DEFAULT ACL"})
# Nodes allowed in statements that set owners or privileges.
_GIVES = frozenset({"alter_owner_stmt", "grant_stmt", "alter_default_privileges_stmt"})
_OF_THE_DATABASE = frozenset(
    getattr(postgast.pg_query_pb2, f"OBJECT_{kind}")
    for kind in (
        "AGGREGATE", "COLLATION", "COLUMN", "CONVERSION", "DOMAIN", "FOREIGN_SERVER", "FOREIGN_TABLE", "FUNCTION",
        "LARGEOBJECT", "MATVIEW", "OPERATOR", "PROCEDURE", "PUBLICATION", "ROUTINE", "SCHEMA", "SEQUENCE",
        "STATISTIC_EXT", "TABLE", "TSCONFIGURATION", "TSDICTIONARY", "TYPE", "VIEW",
    )
)  # fmt: skip
_ONE_LARGE_OBJECT = re.compile(r"LARGE OBJECT [0-9]{1,10}")
_CATALOGUE = "pg_catalog"
_NATIVE_LANGUAGES = ("c", "internal")


def needs_superuser(toc: Toc, trusted_extensions: Collection[str]) -> tuple[str, ...]:
    """Names of the dump's objects that only a superuser can create.

    Args:
        trusted_extensions: those that ordinary roles can create on the server, or that exist already.
    """
    return tuple(dict.fromkeys(_called(entry) for entry in toc.entries if is_of_superusers(entry, trusted_extensions)))


def superuser_owners(toc: Toc) -> dict[str, tuple[str, ...]]:
    """The owners that must be superusers, with the objects that require it."""
    found: dict[str, tuple[str, ...]] = {}
    for entry in toc.entries:
        if entry.owner and (
            entry.desc in _SUPERUSER_OWNED or (entry.desc == "PUBLICATION" and _parsed_as_superusers(entry.definition))
        ):
            found[entry.owner] = (*found.get(entry.owner, ()), _called(entry))
    return found


def ownership_statements(toc: Toc) -> Iterator[str]:
    """The statements that set the owners of a dump's objects, then those that grant privileges.

    Raises:
        RecoveryError: an entry contains something else, which pg_dump never writes.
    """
    groups = {entry.dump_id: _large_objects(entry) for entry in toc.entries if entry.desc == _LARGE_OBJECTS}
    for entry in toc.entries:
        for statement in _owner_statements(entry):
            yield from _only(statement, entry)
    for entry in toc.entries:
        if entry.desc in _RIGHTS and entry.tag.startswith("LARGE OBJECTS "):  # written for the first one of a group
            for oid in (oid for number in entry.dependencies for oid in groups.get(number, ())):
                yield from _only(_ONE_LARGE_OBJECT.sub(f"LARGE OBJECT {oid}", entry.definition), entry)
        elif entry.desc in _RIGHTS:
            yield from _only(entry.definition, entry)


@contextmanager
def loading_role(
    postgres: PostgresSettings, database: str, tablespaces: Collection[str] = ()
) -> Iterator[PostgresSettings]:
    """A role that owns the empty `database` and can do nothing else, for the length of a `with` block.

    Args:
        postgres: a superuser's login. It becomes the owner of what the role still owns afterwards.
        tablespaces: those that the role may use.

    Raises:
        DatabaseError: the server refuses the new role's connection.
    """
    name, password = f"tmi_ops_load_{secrets.token_hex(4)}", secrets.token_urlsafe(24)
    role, target = sql.Identifier(name), sql.Identifier(database)
    address = postgres.model_copy(update={"database": database})
    with connect(address) as connection:
        # Send a verifier instead of the password, because the server might log the statement.
        verifier = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(verifier)))
    try:
        with connect(address) as connection:
            connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(target, role))
            for tablespace in tablespaces:
                grant = sql.SQL("GRANT CREATE ON TABLESPACE {} TO {}").format(sql.Identifier(tablespace), role)
                connection.execute(grant)
        # The connecting role's session options may be ones that only a superuser can set.
        loader = address.model_copy(update={"user": name, "password": SecretStr(password), "options": ""})
        _require_let_in(loader)
        yield loader
    finally:
        with suppress(DatabaseError), connect(address) as connection:  # an earlier error is the cause
            _remove(connection, role)


def give_owners_and_rights(postgres: PostgresSettings, toc: Toc) -> None:
    """Set owners and privileges in the loaded database as the dump says.

    Raises:
        DatabaseError: the server refused a statement.
        RecoveryError: the dump contains something else in their place.
    """
    statements = tuple(ownership_statements(toc))
    with connect(postgres) as connection:
        pin_text_output(connection)
        with connection.transaction():
            for statement in statements:
                connection.execute(statement.encode())


def is_superuser(postgres: PostgresSettings) -> bool:
    """Whether the connecting role is a superuser."""
    with connect(postgres, "postgres") as connection:
        row = connection.execute("SELECT pg_catalog.current_setting('is_superuser')::pg_catalog.bool").fetchone()
    return bool(row and row[0])


def trusted_extensions(postgres: PostgresSettings) -> frozenset[str]:
    """The extensions that ordinary roles can create on this server, and plpgsql, which exists already."""
    with connect(postgres, "postgres") as connection:
        rows = connection.execute(
            "SELECT DISTINCT name FROM pg_catalog.pg_available_extension_versions WHERE trusted OR NOT superuser"
        ).fetchall()
    return frozenset({name for (name,) in rows} | {"plpgsql"})


def is_of_superusers(entry: TocEntry, trusted_extensions: Collection[str]) -> bool:
    """Whether only a superuser can create it."""
    if entry.desc in _OF_SUPERUSERS:
        return True
    if entry.desc == "EXTENSION":
        return entry.tag not in trusted_extensions
    if entry.desc in _RIGHTS:
        return not _gives_alone(entry.definition)
    if entry.desc in ("FUNCTION", "PROCEDURE", "TYPE", "PUBLICATION", "CAST"):
        return _parsed_as_superusers(entry.definition)
    return False


def _parsed_as_superusers(definition: str) -> bool:
    """Functions in C, base types, publications of all tables or a schema, casts without a function."""
    try:
        tree = postgast.parse(definition)
    except postgast.PgQueryError:
        return True
    return any(_makes_what_superusers_make(raw.stmt) for raw in tree.stmts)


def _makes_what_superusers_make(stmt: Any) -> bool:
    kind = stmt.WhichOneof("node")
    node = getattr(stmt, kind)
    if kind == "create_function_stmt":
        options = {option.def_elem.defname: option.def_elem.arg for option in node.options}
        native = "language" in options and options["language"].string.sval.lower() in _NATIVE_LANGUAGES
        return native or ("leakproof" in options and options["leakproof"].boolean.boolval)
    if kind == "create_publication_stmt":
        kinds = {item.publication_obj_spec.pubobjtype for item in node.pubobjects}
        return bool(node.for_all_tables) or bool(kinds - {postgast.pg_query_pb2.PUBLICATIONOBJ_TABLE})
    if kind == "define_stmt":
        return bool(node.kind == postgast.pg_query_pb2.OBJECT_TYPE)
    return kind == "create_cast_stmt" and not node.HasField("func") and not node.inout


def _owner_statements(entry: TocEntry) -> Iterator[str]:
    """Derived from the DROP statement, as pg_restore does. Some objects follow another object's owner."""
    if entry.desc not in _OWNED or not entry.owner:
        return
    owner = '"' + entry.owner.replace('"', '""') + '"'
    if entry.desc == _LARGE_OBJECTS:
        for oid in _large_objects(entry):
            yield f"ALTER LARGE OBJECT {oid} OWNER TO {owner}"
    elif entry.drop_statement:
        described = entry.drop_statement.strip().removeprefix("DROP ").rstrip(";")
        yield f"ALTER {described} OWNER TO {owner}"


def _large_objects(entry: TocEntry) -> list[str]:
    """The large objects of an entry: many since PostgreSQL 17."""
    return re.findall(r"[0-9]{1,10}", entry.definition)


def _only(text: str, entry: TocEntry) -> Iterator[str]:
    """The statements of `text`, if they only set owners or privileges."""
    if not _gives_alone(text):
        raise RecoveryError(
            f"The dump contains other statements in place of the owner or privileges of {_called(entry)}.",
            detail="They were not run.",
            hint="if you trust the dump, load it with the connecting role's rights: --as-superuser",
        )
    encoded = text.encode()
    for raw in postgast.parse(text).stmts:
        end = raw.stmt_location + raw.stmt_len if raw.stmt_len else len(encoded)
        yield encoded[raw.stmt_location : end].decode()


def _gives_alone(text: str) -> bool:
    """Whether statements only set owners or privileges of the database's own objects."""
    try:
        tree = postgast.parse(text)
    except postgast.PgQueryError:
        return False
    return all(_gives(raw.stmt) for raw in tree.stmts)


def _gives(stmt: Any) -> bool:
    kind = stmt.WhichOneof("node")
    node = getattr(stmt, kind)
    if kind == "variable_set_stmt":  # around privileges that were not granted by the owner
        return bool(node.name == "session_authorization")
    if kind == "alter_table_stmt":
        commands = [command.alter_table_cmd.subtype for command in node.cmds]
        return commands == [postgast.pg_query_pb2.AT_ChangeOwner] and not _reaches_catalogue(node)
    if kind == "alter_owner_stmt":
        return bool(node.object_type in _OF_THE_DATABASE) and not _reaches_catalogue(node)
    if kind == "grant_stmt":
        return bool(node.objtype in _OF_THE_DATABASE) and not _reaches_catalogue(node)
    return bool(kind == "alter_default_privileges_stmt")


def _reaches_catalogue(node: Any) -> bool:
    """Whether a statement names a system object: privileges on it may give control of the server."""
    if any(table.schemaname in ("", _CATALOGUE) for table in messages(node, "RangeVar")):
        return True
    if any(not _is_elsewhere(list(named.objname)) for named in messages(node, "ObjectWithArgs")):
        return True
    objects = list(node.objects) if hasattr(node, "objects") else [node.object] if hasattr(node, "object") else []
    lists = [list(item.list.items) for item in objects if item.WhichOneof("node") == "list"]
    plain = [item.string.sval for item in objects if item.WhichOneof("node") == "string"]
    return _CATALOGUE in plain or not all(map(_is_elsewhere, lists))


def _is_elsewhere(name: list[Any]) -> bool:
    """Whether a name is qualified with a schema other than PostgreSQL's own."""
    return len(name) > 1 and name[0].string.sval != _CATALOGUE


def _remove(connection: psycopg.Connection[Any], role: sql.Identifier) -> None:
    connection.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(role))
    connection.execute(sql.SQL("DROP OWNED BY {}").format(role))
    connection.execute(sql.SQL("DROP ROLE {}").format(role))


def _require_let_in(loader: PostgresSettings) -> None:
    try:
        with connect(loader):
            pass
    except DatabaseError as error:
        raise DatabaseError(
            f"The server refused the temporary role that loads the dump: {error.message}",
            detail="The role was removed again.",
            hint="allow roles named tmi_ops_load_... from this host in pg_hba.conf, or load the dump with the "
            "connecting role's rights: --as-superuser",
        ) from None


def _called(entry: TocEntry) -> str:
    name = f"{entry.namespace}.{entry.tag}" if entry.namespace else entry.tag
    return f"{entry.desc.lower()} {name}"
