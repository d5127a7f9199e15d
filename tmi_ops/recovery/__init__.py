"""Verifies and restores logical backups, and recovers clusters to a point in time."""
