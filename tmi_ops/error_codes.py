"""The kinds of error, like PostgreSQL's SQLSTATEs, for scripts and search engines. See docs/errors.md."""

from __future__ import annotations

from enum import Enum


class Code(Enum):
    """A kind of error: its number, what it means, and what to do about it. A number is never used for a second kind."""

    def __init__(self, number: int, meaning: str, remedy: str) -> None:
        self.number = number
        self.meaning = meaning
        self.remedy = remedy

    def __str__(self) -> str:
        return f"TMI-{self.number}"

    # 10: the command line, settings, files of this machine
    FAILED = 1000, "The command could not do its work.", "Follow the HINT."
    USAGE = 1001, "The command line is wrong.", "See the command's `--help`."
    SETTING = 1010, "A setting is missing, malformed, or not allowed in this environment.", "Run `tmi-ops settings`."
    NOT_IN_PROFILE = 1011, "The profile of this environment does not offer this.", "See docs/profiles.md."
    NOT_IN_ENVIRONMENT = (
        1012,
        "The command does not run in this environment.",
        "Choose another with `-e`.",
    )
    ENVIRONMENT = 1013, "The environment is unknown, or none was chosen.", "See `tmi-ops status --all`, or TMI_ENV."
    SETTINGS_FILE = 1014, "A settings file cannot be read, parsed or written.", "Follow the HINT."
    SECRET_IN_CLEAR = 1015, "A file that is shared contains a secret.", "Name a file or variable; replace the secret."
    INSECURE_CONNECTION = 1016, "Production refuses a connection without TLS.", "Set POSTGRES_SSLMODE=verify-full."
    STILL_IN_USE = 1017, "What `tmi-ops uninit` would remove is in use.", "Stop what uses it."
    PORT_IN_USE = 1020, "Another process listens on the port.", "Choose another port."
    DISK_SPACE = 1030, "The work would fill a disk, so it was not begun.", "Free space, or name another directory."

    # 11: PostgreSQL
    POSTGRESQL = (
        1100,
        "PostgreSQL could not be reached, refused us, or answered with an error.",
        "Run `tmi-ops doctor`.",
    )
    UNREACHABLE = 1101, "No server answers at the configured address.", "Check POSTGRES_HOST and POSTGRES_PORT."
    TLS_FAILED = 1102, "The TLS connection to PostgreSQL failed.", "Follow the HINT; see docs/security.md."
    NOT_ACCEPTING = 1103, "The server does not accept the connection, now or with its settings.", "Follow the HINT."
    HBA_REJECTED = 1104, "No pg_hba.conf line allows the connection.", "Add the line in the HINT, then reload."
    LOGIN_FAILED = 1105, "PostgreSQL rejected the role or its password.", "Check POSTGRES_USER and POSTGRES_PASSWORD."
    DATABASE_REFUSED = 1106, "The database does not exist, or does not accept this role.", "Follow the HINT."
    RIGHTS_MISSING = 1110, "The role lacks a right that the command needs.", "Grant what the HINT names."
    CONNECTION_LOST = 1111, "The connection to PostgreSQL was lost.", "Run the command again."
    SERVER_MEMORY = 1112, "The server has not enough memory for a statement.", "Follow the HINT."
    REPLICATION = 1120, "The server refused or ended a replication connection.", "Run `tmi-ops doctor`."

    # 12: PostgreSQL's programs
    PROGRAM = 1200, "A PostgreSQL program is missing, of the wrong version, or failed.", "See its ERROR line."
    PROGRAM_MISSING = (
        1210,
        "A PostgreSQL program is not installed, or not where it was looked for.",
        "Set TMI_OPS_PG_BINDIR.",
    )
    PROGRAM_VERSION = 1220, "A PostgreSQL program has the wrong version.", "Install the version in the HINT."

    # 13: the store
    STORE = 1300, "The store answered with an error.", "Follow the HINT, or run `tmi-ops doctor`."
    STORE_UNREACHABLE = 1301, "The S3 store could not be reached.", "Check TMI_OPS_S3_ENDPOINT_URL and the network."
    STORE_KEYS_REJECTED = (
        1302,
        "The S3 store rejected the access keys, or there are none.",
        "Check TMI_OPS_S3_ACCESS_KEY_ID.",
    )
    STORE_RIGHT_MISSING = (
        1303,
        "The access keys or the account lack a right.",
        "Grant the policy of their purpose: docs/iam.",
    )
    STORE_ADDRESS = (
        1304,
        "The bucket, endpoint, region or directory is missing or wrong.",
        "Correct the setting in the HINT.",
    )
    OBJECT_MISSING = 1310, "An object is not in the store.", "Find out who deleted it; a versioned bucket still has it."
    NO_SUCH_BACKUP = 1311, "No backup has this id, or several ids begin so.", "See `tmi-ops backups`."
    OBJECT_EXISTS = (
        1320,
        "The store already has an object of that name; it was not overwritten.",
        "Find out what wrote it.",
    )
    OBJECT_CHANGED = 1321, "Somebody else changed the object at the same time.", "Run the command again."
    DAMAGED = 1330, "An object differs from what was written.", "Use another backup; find out what wrote there."
    BACKUP_INCOMPLETE = 1331, "Objects of a backup are missing.", "Restore their old versions, or use another backup."
    RECORD_UNREADABLE = 1340, "A record in the store cannot be read.", "Use the release that wrote it, or a newer one."
    PRIVATE_KEY = (
        1350,
        "The private age key is missing, unreadable, or not the right one.",
        "Set TMI_OPS_AGE_IDENTITY_FILE.",
    )

    # 14: trust
    UNTRUSTED = 1400, "An object is not signed by a trusted key.", "See docs/security.md."
    NOT_ENCRYPTED = 1401, "An object is not encrypted although all are meant to be.", "Find out who wrote it."
    MISPLACED = 1402, "A document was copied, renamed, or belongs elsewhere.", "Find out who put it there."
    ROLLED_BACK = 1410, "The store is in an older state than this machine has seen.", "See docs/security.md."
    BAD_SIGNATURE = 1420, "A signature does not match its object.", "See docs/security.md."
    SIGNING_KEY = 1430, "The signing key is missing, damaged, or has a password.", "Follow the HINT."

    # 20: backups
    BACKUP = 2000, "A backup was not taken.", "Follow the HINT; the backups before it are untouched."
    BACKUP_RUNNING = 2010, "Another backup of this database is running.", "Wait until it ends."
    GAVE_WAY = 2020, "The backup gave way to a session that waited for its locks.", "Run it at a quieter time."
    LOCK_NOT_GRANTED = 2021, "The backup did not get a lock that it needs.", "End the transaction in the HINT."
    LOCK_TABLE_FULL = 2022, "The server's lock table has no room for the backup.", "Raise max_locks_per_transaction."
    ARCHIVE_FORMAT = 2030, "The dump is damaged, or not in a format that pg_dump writes.", "Take another backup."
    RESTORE_POINT_BUSY = 2040, "No moment without writers was found for a restore point.", "Run the command again."
    RESTORE_POINT_REFUSED = 2041, "The server cannot create a restore point.", "Follow the HINT."

    # 21: WAL
    WAL_CONFLICT = 2100, "The archive has different WAL under that name.", "See `tmi-ops wal gaps`."
    WAL_DISCONTINUOUS = 2101, "The server's WAL does not continue the archive.", "Follow the HINT; see docs/wal.md."
    OTHER_CLUSTER = 2102, "The server is not the cluster whose WAL was being archived.", "Follow the HINT."
    SLOT_LOST = 2110, "The replication slot is gone, or has lost WAL.", "Take a base backup."
    WAL_GONE = 2120, "The server no longer has WAL that the archive needs.", "Take a base backup."
    LEASE_HELD = 2130, "Another receiver archives this server's WAL.", "See `tmi-ops wal status`."
    LEASE_LOST = 2131, "The receiver could not renew its lease.", "Start the receiver again."
    WAL_DAMAGED = 2140, "Archived WAL is damaged.", "See `tmi-ops wal gaps --deep`."

    # 22: retention
    RETENTION_REFUSED = (
        2200,
        "Pruning now could remove what a recovery needs, so nothing was removed.",
        "Follow the HINT.",
    )
    CLOCKS_DIFFER = 2201, "The clocks of this machine, the database and the store disagree.", "Correct the wrong clock."
    BACKUPS_STOPPED = 2202, "No backup and no WAL has been stored for days.", "Take a backup and verify it."
    HOLD_EXISTS = 2210, "The backup already has a hold.", "Release it first: `tmi-ops release ID`."
    NOT_HELD = 2211, "The backup has no hold.", "See `tmi-ops holds`."

    # 30: verification, restore, recovery
    RECOVERY = 3000, "A restore or its verification did not succeed.", "Follow the HINT."
    BASE_UNUSABLE = 3010, "A base backup cannot be restored.", "Use another: `tmi-ops backups`."
    NO_BASE_BACKUP = 3011, "There is no base backup to recover from.", "Take one: `tmi-ops backup base`."
    NOT_HERE = 3020, "This server lacks what the backup needs.", "Install what is named, or restore elsewhere."
    LOAD_FAILED = 3030, "The dump could not be loaded.", "See the server's ERROR line."
    NEEDS_SUPERUSER = 3031, "The restore needs rights that the connecting role lacks.", "Grant what the HINT names."
    COPY_DIFFERS = 3032, "The restored copy differs from what was backed up.", "Verify another backup."
    TARGET_UNKNOWN = 3040, "The target names a restore point or timeline that does not exist.", "Check its spelling."
    TARGET_TOO_EARLY = 3041, "The target lies before the recovery window.", "Choose a later target."
    TARGET_TOO_LATE = 3042, "The target lies after the end of the archived WAL.", "Use `--latest`, or archive more."
    TARGET_AMBIGUOUS = 3043, "The target means more than one state.", "Name the LSN or the timeline."
    WAL_INCOMPLETE = 3050, "The archived WAL does not lead to the target.", "See `tmi-ops wal gaps`."
    REPLAY_ENDED = 3051, "The server stopped replaying before the target.", "See `tmi-ops wal gaps --deep`."
    DIRECTORY_TAKEN = 3060, "The directory cannot be restored into.", "Give another directory, or empty this one."
    DATABASE_EXISTS = 3061, "There is a database of that name.", "Use another name, or `--replace`."

    # 31: row rescue
    CONFLICTS = 3100, "Rows conflict with the current ones, so nothing was written.", "Choose with `--conflicts`."
    ROWS_CHANGED = 3110, "The database has changed since the plan was made.", "Run the command again."
    CANNOT_RESTORE_ROWS = 3120, "Something prevents the rows or columns from being restored.", "Follow the HINT."
    RESULT_DIFFERS = 3130, "What was written differs from the past, so it was rolled back.", "Follow the HINT."
    NOT_IN_PAST = 3140, "The table, column or row did not exist at that moment.", "Use `tmi-ops recover find`."
    TRAVEL_NOT_OPEN = 3150, "No past is open.", "Open one: `tmi-ops travel --to-time TIME`."
    TRAVEL_OPEN = 3151, "Another past is open.", "Close it: `tmi-ops travel --end`."

    # 32: runbooks
    RUNBOOK = 3200, "A step of a runbook failed.", "Continue with `tmi-ops recover resume`."
    DECLINED = 3210, "A question was answered with no.", "Continue with `tmi-ops recover resume`."
    DEFERRED = 3220, "A step was left for later.", "Do it as the HINT says."
    JOURNAL_UNREADABLE = 3230, "The journal of a recovery cannot be read.", "Use the release that wrote it."
    RUN_HAS_OBSTACLES = 3240, "A later step of the run would fail, so the run was not started.", "Follow the HINT."
    RUN_BUSY = 3250, "Another process executes the run.", "Wait for it, or stop it."
    RUN_UNFINISHED = 3251, "An earlier run is not finished.", "Resume it or undo it: `tmi-ops recover list`."
    RUN_UNDONE = 3260, "The run was undone, or is being undone.", "Start a new run."
    CANNOT_UNDO = 3261, "The run cannot be undone.", "Continue with `tmi-ops recover resume`."
    RUN_ELSEWHERE = 3262, "The new server of the run is on another machine.", "Resume the run there."
    NOT_CONFIRMED = 3270, "A launch from Dagster's page was not confirmed.", "See `tmi-ops recover code --help`."
    NOT_ALLOWED_HERE = 3271, "A launch from Dagster's page asked for more than is allowed.", "Follow the HINT."
    HOOK_FAILED = 3280, "A hook of the application failed.", "Fix the hook, then run `tmi-ops recover resume`."
    APPLICATION_UNHEALTHY = 3281, "The application is not healthy.", "See the application's log."
    NO_SOUND_MOMENT = 3290, "No restored candidate passed its checks.", "Name an earlier moment with `--to-time`."

    # 33: drills and heartbeat
    HEARTBEAT_REFUSED = 3310, "No heartbeat can be written to this database.", "Follow the HINT."

    # 34: shadow
    SHADOW_REFUSED = (
        3400,
        "The shadow refused WAL that does not continue what it replayed.",
        "See `tmi-ops shadow status`.",
    )
    SHADOW_RUNNING = 3410, "Another process runs this shadow.", "See `tmi-ops shadow status`."
    NO_SHADOW = 3420, "There is no shadow on this machine.", "Start one: `tmi-ops shadow run`."
    SHADOW_NAME_TAKEN = 3430, "Another shadow reports under this name.", "Give this one another: `--name`."
    SHADOW_FAILED = 3440, "The shadow's server failed.", "See `tmi-ops shadow status`."

    # 40: health and maintenance
    WINDOW_CLOSED = 4010, "The maintenance window is closed.", "Wait for it, or set another with --window."
    MAINTENANCE_RUNNING = 4020, "Another maintenance run works on this database.", "Wait until it is done."
    STANDBY = 4030, "The server is a standby, and standbys are read-only.", "Set POSTGRES_HOST to the primary."

    # 41: roles and privileges
    ROLES = 4100, "The server refused a statement of `tmi-ops roles apply`.", "See the server's message."
    ROLES_RIGHTS = 4110, "The connecting role lacks rights to change the roles.", "Connect as an administrator."
    ROLES_LOCKED = 4120, "Another session holds a lock that the change needs.", "Run `tmi-ops roles apply` again."
    PASSWORDS_EXPOSED = 4130, "Others can read the file of generated passwords.", "Follow the HINT."

    # 42: cache
    CACHE = 4200, "Redis could not be reached, refused us, or answered with an error.", "Run `tmi-ops doctor`."
    NO_CACHE = 4210, "No cache is configured.", "Set REDIS_HOST or TMI_REDIS_URL."
    CACHE_PATTERN = 4220, "A key pattern to keep or drop is not allowed.", "Correct TMI_OPS_CACHE_KEEP or _DROP."
    CACHE_REPLICA = 4230, "The Redis server is a replica and takes no writes.", "Set REDIS_HOST to the primary."
    CACHE_CLUSTER = 4240, "The Redis server is one node of a cluster.", "Run the command on each primary in turn."

    # 43: schema
    MIGRATION_RUNNING = 4310, "Another migration of this database is running.", "Wait until it is done, or end it."
    MIGRATION_BLOCKED = 4320, "A step of a migration could not get its lock.", "End the transaction that blocks it."
    MIGRATION_RIGHTS = 4330, "The role lacks a privilege that a migration needs.", "Run it as the tables' owner."
    MIGRATION_FAILED = 4340, "A step of a migration failed.", "Fix the cause, then run `tmi-ops migrate` again."

    # 50: Dagster
    READING_SLOW = 5010, "Recoverability could not be read within the time of a tick.", "Follow the HINT."
    WRONG_CONFIRMATION = (
        5020,
        "A run was confirmed with the name of another environment.",
        "Launch it again; see its HINT.",
    )

    # 60: the embedded stack
    STACK = 6000, "The embedded stack could not be started, stopped or found.", "See `tmi-ops stack status`."
    STACK_RUNNING = 6010, "The embedded stack is running.", "Run `tmi-ops down`."
    STACK_SERVER_FAILED = 6020, "A server of the embedded stack did not start, or keeps failing.", "Read its log."
    STACK_NOT_STOPPED = 6021, "The embedded stack, or a server of it, did not stop.", "Follow the HINT."
    STACK_NOT_INSTALLED = 6030, "A program or file of the embedded stack is not installed.", "Follow the HINT."
    STACK_DAGSTER = (
        6040,
        "The embedded stack's Dagster does not answer, or refused a job.",
        "Run `tmi-ops stack status`.",
    )
