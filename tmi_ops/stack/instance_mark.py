"""Identifies a stack's own webserver: of two stacks that start at once and chose one port, only one gets it."""

from __future__ import annotations

import hashlib

HEADER = "x-tmi-ops-instance"


def instance_mark(dagster_home: str) -> str:
    """The value of HEADER for a webserver of this DAGSTER_HOME; does not reveal the path."""
    return hashlib.sha256(f"tmi_ops webserver {dagster_home}".encode()).hexdigest()[:16]
