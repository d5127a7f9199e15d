"""The WAL archive: the receiver, catch-up, `wal push` for archive_command, and what the archive covers."""
