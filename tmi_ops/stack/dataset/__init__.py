"""A realistic TMI data set from a seed, for the demo, for tests and for measurements."""

from __future__ import annotations

from tmi_ops.stack.dataset.fill import DEFAULT_SIZE, DatasetSummary, fill_database

__all__ = ["DEFAULT_SIZE", "DatasetSummary", "fill_database"]
