"""The code location: wiring only."""

from __future__ import annotations

from dagster import Definitions

defs = Definitions()
