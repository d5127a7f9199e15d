"""Runbook 1: the data is damaged. Back to the last good moment, with the damaged data kept aside."""
