"""All probes, in the order they are shown."""

from __future__ import annotations

from tmi_ops.health.probe import AnyProbe
from tmi_ops.health.probes.bloat import INDEX_BLOAT, TABLE_BLOAT
from tmi_ops.health.probes.disk import CHECKSUM_FAILURES, DISK_SPACE
from tmi_ops.health.probes.index_use import FOREIGN_KEYS_WITHOUT_INDEX, UNUSED_INDEXES
from tmi_ops.health.probes.indexes import DUPLICATE_INDEXES, INVALID_INDEXES
from tmi_ops.health.probes.locks import BLOCKED_SESSIONS, PREPARED_TRANSACTIONS
from tmi_ops.health.probes.own_checks import OWN_CHECKS
from tmi_ops.health.probes.replication import REPLAY_DELAY, REPLICATION_LAG, REPLICATION_SLOTS
from tmi_ops.health.probes.schema import MIGRATION, SCHEMA_FINDINGS
from tmi_ops.health.probes.security import FAILED_LOGINS, SSL_CONNECTIONS
from tmi_ops.health.probes.sequences import SEQUENCES
from tmi_ops.health.probes.sessions import CONNECTIONS, IDLE_IN_TRANSACTION, LONG_QUERIES
from tmi_ops.health.probes.sizes import SIZES
from tmi_ops.health.probes.statements import SLOW_QUERIES
from tmi_ops.health.probes.transactions import CACHE_HIT_RATIO, TEMPORARY_FILES, TRANSACTIONS
from tmi_ops.health.probes.vacuum import ANALYZE, AUTOVACUUM
from tmi_ops.health.probes.wal import ARCHIVER, CHECKPOINTS, DURABILITY, WAL_RATE
from tmi_ops.health.probes.wraparound import MULTIXACT_WRAPAROUND, TRANSACTION_WRAPAROUND
from tmi_ops.profile import Profile

PROBES: tuple[AnyProbe, ...] = (
    CONNECTIONS,
    LONG_QUERIES,
    IDLE_IN_TRANSACTION,
    BLOCKED_SESSIONS,
    PREPARED_TRANSACTIONS,
    TRANSACTIONS,
    CACHE_HIT_RATIO,
    SLOW_QUERIES,
    SIZES,
    TABLE_BLOAT,
    TEMPORARY_FILES,
    DISK_SPACE,
    CHECKSUM_FAILURES,
    AUTOVACUUM,
    ANALYZE,
    TRANSACTION_WRAPAROUND,
    MULTIXACT_WRAPAROUND,
    CHECKPOINTS,
    WAL_RATE,
    ARCHIVER,
    REPLICATION_SLOTS,
    REPLICATION_LAG,
    REPLAY_DELAY,
    DURABILITY,
    INVALID_INDEXES,
    DUPLICATE_INDEXES,
    UNUSED_INDEXES,
    INDEX_BLOAT,
    FOREIGN_KEYS_WITHOUT_INDEX,
    MIGRATION,
    SCHEMA_FINDINGS,
    OWN_CHECKS,
    SEQUENCES,
    SSL_CONNECTIONS,
    FAILED_LOGINS,
)


def probes_of(profile: Profile) -> tuple[AnyProbe, ...]:
    """The probes that apply to an application of this profile."""
    return tuple(probe for probe in PROBES if probe.fits(profile))
