"""SQLAlchemy's PostgreSQL dialect, without a connection."""

from __future__ import annotations

from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.sql.compiler import IdentifierPreparer

# Named parameters, so that a % in a name or text stays a % in statements that are run or shown.
DIALECT = PGDialect(paramstyle="named")  # type: ignore[no-untyped-call]
_preparer: IdentifierPreparer = DIALECT.identifier_preparer


def quote(name: str) -> str:
    """A name as SQL, quoted if necessary."""
    return _preparer.quote(name)
