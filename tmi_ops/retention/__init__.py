"""Retention: decides which backups and WAL to remove and why the rest is kept, and removes them crash-safely."""
