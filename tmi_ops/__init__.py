"""tmi_ops keeps TMI's PostgreSQL database recoverable, and verifies it by restoring."""

__version__ = "0.1.0"
