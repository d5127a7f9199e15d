"""By what a stack knows its own webserver: two that start at once may have chosen one port, and one of them gets it."""

from __future__ import annotations

import hashlib

HEADER = "x-tmi-ops-instance"


def instance_mark(dagster_home: str) -> str:
    """What a webserver of this DAGSTER_HOME says in HEADER; it tells nobody the path."""
    return hashlib.sha256(f"tmi_ops webserver {dagster_home}".encode()).hexdigest()[:16]
