"""Dropped columns come back: added as they were, filled by key in rows that are still there, with what fell with them.

1. `definition.py` reads from the past what the columns were: type, default, NOT NULL, comment, settings, grants.
2. `belongings.py` finds what a DROP COLUMN took along: indexes, constraints, triggers, statistics, views, sequences.
3. `values.py` moves their values; `planning.py` says what would be done; `execution.py` does it in one transaction.
"""
