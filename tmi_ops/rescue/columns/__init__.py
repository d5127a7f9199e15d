"""Restores dropped columns: adds them, fills them by key in rows that still exist, and recreates dependent objects.

1. `definition.py` reads the columns' definitions from the past: type, default, NOT NULL, comment, settings, grants.
2. `dependents.py` finds what was dropped with them: indexes, constraints, triggers, statistics, views, sequences.
3. `values.py` moves their values; `planning.py` makes the plan; `execution.py` executes it in one transaction.
"""
