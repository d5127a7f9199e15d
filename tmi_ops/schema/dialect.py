"""PostgreSQL's SQL as SQLAlchemy writes it, without a connection."""

from __future__ import annotations

from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.sql.compiler import IdentifierPreparer

# Without placeholders: a % in a name or a text is one, in what is run and in what is shown.
DIALECT = PGDialect(paramstyle="named")  # type: ignore[no-untyped-call]
_preparer: IdentifierPreparer = DIALECT.identifier_preparer


def quote(name: str) -> str:
    """A name as it stands in SQL, quoted where it must be."""
    return _preparer.quote(name)
