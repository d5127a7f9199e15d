"""Puts a recovered cluster into service: its configuration for this machine, its server, and its connection strings."""
