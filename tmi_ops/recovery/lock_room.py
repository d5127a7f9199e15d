"""Sizes the lock table of a scratch cluster: a script is restored in one transaction, and the dump that counts the
copy locks every table at once."""

from __future__ import annotations

from tmi_ops.backup.archive.files import TOC_FILE, read_toc
from tmi_ops.backup.copying import TOC_OBJECT
from tmi_ops.postgres.lock_table import SETTING, LockTable
from tmi_ops.recovery.fetch import FetchedBackup

# Default of max_connections, which scratch clusters use.
_SESSIONS = 100
# A table has at least three entries in a dump, and takes further locks: TOAST table, indexes, sequence.
_LOCKS_PER_ENTRY = 1.5


def lock_parameters(fetched: FetchedBackup) -> dict[str, str]:
    """Parameters of a scratch cluster that can lock every object of the dump at once."""
    return {SETTING: str(LockTable(0, _SESSIONS).max_locks_for(int(_entries(fetched) * _LOCKS_PER_ENTRY)))}


def _entries(fetched: FetchedBackup) -> int:
    names = {item.name for item in fetched.manifest.objects}
    if TOC_OBJECT in names:
        return len(read_toc(fetched.path(TOC_OBJECT)).entries)
    if fetched.dump.is_dir() and not (fetched.dump / TOC_FILE).is_file():
        return 0
    if fetched.manifest.format in ("custom", "directory"):
        return len(read_toc(fetched.dump).entries)
    return 4 * len(fetched.manifest.fingerprints)  # a script of an earlier release has no table of contents
