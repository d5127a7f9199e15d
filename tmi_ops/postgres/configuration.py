"""Values as postgresql.conf reads them.

Source: PostgreSQL, Server Configuration, Parameter Interaction via the Configuration File.
"""

from __future__ import annotations


def quoted_value(value: str) -> str:
    """The value between single quotes, whatever it holds."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
