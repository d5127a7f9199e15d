"""Runbooks for the guide's disasters: a printed plan, recorded steps, evidence at the end."""
