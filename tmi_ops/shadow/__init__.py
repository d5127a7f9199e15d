"""Continuous verification: a server that needs only the store replays the archive as it grows, and reports how far."""
