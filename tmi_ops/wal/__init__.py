"""Continuous WAL in the store: the receiver, catch-up, archive_command's push, and the check for gaps."""
