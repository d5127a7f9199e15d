"""tmi_ops keeps TMI's PostgreSQL database recoverable, and proves it by restoring."""

__version__ = "0.1.0"
