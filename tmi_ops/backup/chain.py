"""Which backup an incremental one builds upon, or why a full one is needed.

A chain is a full base backup and the incremental ones upon it; restoring the last requires all of them. Its length is
therefore limited, and it is continued only if every link is known to be present.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tmi_ops.postgres.versions import INCREMENTAL_BACKUP, since
from tmi_ops.store.manifest import BaseManifest

# Backups in a chain, the full one included. A week of nightly backups restores from at most 6 + 1 directories.
LONGEST_CHAIN = 6


@dataclass(frozen=True)
class ChainFacts:
    """The facts that the decision needs.

    `bases`: all base backups in the store. `unusable`: ids of backups that failed verification or lack an object.
    """

    server_version_num: int
    summarize_wal: bool
    system_identifier: str
    bases: Sequence[BaseManifest]
    unusable: Collection[str] = ()
    longest: int = LONGEST_CHAIN


@dataclass(frozen=True)
class Continuation:
    """Either the backup to build upon, or the reason for a full one."""

    parent: BaseManifest | None
    full_because: str | None

    @property
    def chain(self) -> tuple[str, ...]:
        """The ids of the backups that a backup upon the parent needs, the full one first."""
        return (*self.parent.chain, self.parent.backup_id) if self.parent else ()


def continue_chain(facts: ChainFacts) -> Continuation:
    """Decide what an incremental backup taken now can build upon."""
    if facts.server_version_num < since(INCREMENTAL_BACKUP):
        return _full(
            f"PostgreSQL {facts.server_version_num // 10000} cannot take incremental backups; 17 and later can"
        )
    if not facts.summarize_wal:
        return _full(
            "the server does not summarize its WAL. To change that: ALTER SYSTEM SET summarize_wal = on; "
            "SELECT pg_reload_conf();"
        )
    newest = newest_of(facts.bases, facts.system_identifier)
    if newest is None:
        return _full("this cluster has no base backup yet")
    links = (*newest.chain, newest.backup_id)
    if len(links) >= facts.longest:
        return _full(f"the chain has reached its maximum of {facts.longest} backups")
    known = {base.backup_id for base in facts.bases}
    for link in links:
        if link not in known:
            return _full(f"{link}, which the chain needs, is missing or its manifest cannot be read")
        if link in facts.unusable:
            return _full(f"{link}, which the chain needs, is incomplete or failed its verification")
    return Continuation(newest, None)


def newest_of(bases: Sequence[BaseManifest], system_identifier: str) -> BaseManifest | None:
    """The base backup of a cluster that ended last. Ids cannot tell: their timestamps have whole seconds only."""
    of_cluster = [base for base in bases if base.system_identifier == system_identifier]
    return max(of_cluster, key=lambda base: base.consistent_at, default=None)


def _full(because: str) -> Continuation:
    return Continuation(None, because)
