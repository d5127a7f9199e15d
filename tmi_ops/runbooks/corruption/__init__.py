"""Runbook 1: the data is damaged. Recover to the last good moment and keep the damaged data."""
