"""The supported PostgreSQL versions, and which feature came with which.

A new major version is one number in `NEWEST`, and a line below for each of its features that we use. Settings that
are pinned say in their own tables (`session.py`, `shelter.py`) since when they exist.
"""

from __future__ import annotations

OLDEST, NEWEST = 13, 19
EMBEDDED = 17  # what the extra tmi-ops[stack] installs

READ_ALL_DATA = 14  # the predefined roles pg_read_all_data and pg_write_all_data
AMCHECK_PROGRAM = 14  # pg_amcheck
COLUMN_COMPRESSION = 14  # pg_attribute.attcompression
LOCK_WAIT_START = 14  # pg_locks.waitstart
STANDBY_SAYS_SO = 14  # in_hot_standby, also to a walsender
NEVER_ANALYZED = 14  # pg_class.reltuples is -1; zero meant that, too
ARCHIVE_LIBRARY = 15
BASE_BACKUP_MESSAGES = 15  # one COPY of typed messages, compressed by the server if asked
LOCALE_PROVIDER = 15  # of a database: ICU beside libc
PARAMETER_RIGHTS = 15  # GRANT SET, ALTER SYSTEM ON PARAMETER
PUBLISHED_COLUMNS = 15  # publications choose columns and rows
GRANTORS = 16  # GRANTED BY says whose grant it is; CREATEROLE needs ADMIN
DUMP_IN_ZSTD = 16  # pg_dump --compress=zstd
ICU_RULES = 16  # pg_database.daticurules
MEMBERSHIP_OPTIONS = 16  # GRANT ... WITH INHERIT, SET
MONITOR_READS_LOG = 16  # pg_monitor may call pg_current_logfile
VIEW_COLUMNS_BARE = 16  # a view's columns are not qualified where one table has them
REQUIRE_AUTH = 16  # libpq's require_auth
INCREMENTAL_BACKUP = 17  # summarize_wal
MAINTAIN = 17  # the right to VACUUM, ANALYZE, REINDEX; pg_maintain
CHECKPOINTER_VIEW = 17  # pg_stat_checkpointer
PROVIDERS_LOCALE = 17  # pg_database.datlocale
NOT_NULL_NAMED = 18  # NOT NULL is a constraint with a name

_NUM_PER_MAJOR = 10_000


def since(major: int) -> int:
    """The lowest `server_version_num` of a major version, which libpq's own number resembles."""
    return major * _NUM_PER_MAJOR


def major_of(version_num: int) -> int:
    """The major version of a `server_version_num`."""
    return version_num // _NUM_PER_MAJOR
