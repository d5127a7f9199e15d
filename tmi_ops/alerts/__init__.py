"""Alerts: who is notified when recoverability is at risk, and the messages they get."""
