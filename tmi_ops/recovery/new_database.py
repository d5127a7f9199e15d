"""Creates an empty database for a copy, with the source's encoding and collation."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
from psycopg import sql

from tmi_ops.backup.properties import DatabaseProperties
from tmi_ops.error_codes import Code
from tmi_ops.errors import DatabaseError, first_line
from tmi_ops.postgres.connections import connect
from tmi_ops.postgres.versions import LOCALE_PROVIDER
from tmi_ops.progress import Report
from tmi_ops.settings import PostgresSettings

DEFAULT_TABLESPACE = "pg_default"
_NO_SUCH_LOCALE = (
    psycopg.errors.WrongObjectType,
    psycopg.errors.InvalidParameterValue,
    psycopg.errors.FeatureNotSupported,  # a server without ICU
    psycopg.errors.UndefinedFile,
)


def create_database(
    address: PostgresSettings, source: DatabaseProperties, name: str, report: Report, *, any_locale: bool = True
) -> None:
    """Create an empty database with the source's encoding, locale and, if the server has it, tablespace.

    Args:
        any_locale: if the server lacks the locale, use C and note it; otherwise refuse.

    Raises:
        DatabaseError: it exists, the role may not create databases, or the server lacks the locale.
    """
    with connect(address, "postgres") as connection:
        tablespaces = {row[0] for row in connection.execute("SELECT spcname FROM pg_catalog.pg_tablespace").fetchall()}
        create = sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name))
        if source.encoding is not None:
            create += sql.SQL(" ENCODING {}").format(sql.Literal(source.encoding))
        if source.tablespace in tablespaces - {DEFAULT_TABLESPACE} and source.tablespace is not None:
            create += sql.SQL(" TABLESPACE {}").format(sql.Identifier(source.tablespace))
        try:
            try:
                connection.execute(create + sql.SQL("").join(locale_options(source, connection.info.server_version)))
            except _NO_SUCH_LOCALE as error:
                if not any_locale:
                    raise DatabaseError(
                        f"This server lacks the locale of the backup's database: {first_line(error)}.",
                        hint="install the locale (or PostgreSQL with ICU) on the server; or use the C locale with "
                        "--accept-differences, which changes ORDER BY and the order of text indexes",
                        code=Code.NOT_HERE,
                    ) from None
                report.note(f"This server lacks the locale {source.locale or source.collation}; {name} uses C instead.")
                connection.execute(create + sql.SQL(" LC_COLLATE 'C' LC_CTYPE 'C'"))
        except psycopg.errors.DuplicateDatabase:
            raise DatabaseError(
                f"The database {name} already exists.",
                hint="choose another name for --into",
                code=Code.DATABASE_EXISTS,
            ) from None
        except psycopg.errors.InsufficientPrivilege:
            raise DatabaseError(
                f"{address.user} may not create databases.",
                hint=f'run as a superuser `ALTER USER "{address.user}" CREATEDB`',
                code=Code.NEEDS_SUPERUSER,
            ) from None


def locale_options(source: DatabaseProperties, server_version: int) -> Iterator[sql.Composed]:
    """The options of CREATE DATABASE that reproduce the source's collation.

    Source: https://www.postgresql.org/docs/current/sql-createdatabase.html (15: ICU, 16: rules, 17: builtin)
    """
    if source.collation is not None:
        yield sql.SQL(" LC_COLLATE {}").format(sql.Literal(source.collation))
    if source.ctype is not None:
        yield sql.SQL(" LC_CTYPE {}").format(sql.Literal(source.ctype))
    if source.provider == "libc":
        if server_version // 10000 >= LOCALE_PROVIDER:
            yield sql.SQL(" LOCALE_PROVIDER {}").format(sql.Literal("libc"))
        return
    yield sql.SQL(" LOCALE_PROVIDER {}").format(sql.Literal(source.provider))
    if source.locale is not None:
        option = "ICU_LOCALE" if source.provider == "icu" else "BUILTIN_LOCALE"
        yield sql.SQL(" {} {}").format(sql.SQL(option), sql.Literal(source.locale))
    if source.icu_rules is not None:
        yield sql.SQL(" ICU_RULES {}").format(sql.Literal(source.icu_rules))


def drop_database(address: PostgresSettings, name: str) -> None:
    """Drop a database that we created, if it exists, and terminate its sessions."""
    with connect(address, "postgres") as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
