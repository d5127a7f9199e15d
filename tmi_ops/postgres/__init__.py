"""Reaching PostgreSQL: connections, programs, scratch clusters, roles."""
