"""The supported PostgreSQL versions, and which feature came with which: the only place that tests major versions.

A new major version is one number in `NEWEST`, and a line below for each of its features that we use.
"""

from __future__ import annotations

OLDEST, NEWEST = 13, 19
EMBEDDED = 17  # what the extra tmi-ops[stack] installs

READ_ALL_DATA = 14  # the predefined roles pg_read_all_data and pg_write_all_data
AMCHECK_PROGRAM = 14  # pg_amcheck
COLUMN_COMPRESSION = 14  # pg_attribute.attcompression
LOCK_WAIT_START = 14  # pg_locks.waitstart
ARCHIVE_LIBRARY = 15
LOCALE_PROVIDER = 15  # of a database: ICU beside libc
NULLS_NOT_DISTINCT = 15  # pg_index.indnullsnotdistinct
PUBLIC_MAY_NOT_CREATE = 15  # in the schema public, from the start
GRANTORS = 16  # GRANTED BY says whose grant it is; CREATEROLE needs ADMIN
RESERVED_CONNECTIONS = 16
MONITOR_READS_LOG = 16  # pg_monitor may call pg_current_logfile
INCREMENTAL_BACKUP = 17  # summarize_wal
MAINTAIN = 17  # the right to VACUUM, ANALYZE, REINDEX; pg_maintain
CHECKPOINTER_VIEW = 17  # pg_stat_checkpointer
EVENT_TRIGGERS_SWITCH = 17
REPACK = 19  # REPACK (CONCURRENTLY), which frees space online
WIDE_MULTIXACT_OFFSETS = 19  # members of multixacts no longer run out before their ids
