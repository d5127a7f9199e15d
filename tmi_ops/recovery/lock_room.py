"""The room for locks that a server of ours needs to take a backup: a script restores in one transaction, and the dump
that counts the copy locks every table at once."""

from __future__ import annotations

from tmi_ops.backup.archive.files import TOC_FILE, read_toc
from tmi_ops.backup.copying import TOC_OBJECT
from tmi_ops.postgres.lock_table import SETTING, LockTable
from tmi_ops.recovery.fetch import FetchedBackup

# A server's default max_connections, which ours have.
_SESSIONS = 100
# A table of a dump is three entries or more, and at most as many locks again: its TOAST table, indexes, sequence.
_LOCKS_PER_ENTRY = 1.5


def lock_parameters(fetched: FetchedBackup) -> dict[str, str]:
    """Parameters of a scratch cluster with room for every object of the dump at once."""
    return {SETTING: str(LockTable(0, _SESSIONS).max_locks_for(int(_entries(fetched) * _LOCKS_PER_ENTRY)))}


def _entries(fetched: FetchedBackup) -> int:
    names = {item.name for item in fetched.manifest.objects}
    if TOC_OBJECT in names:
        return len(read_toc(fetched.path(TOC_OBJECT)).entries)
    if fetched.dump.is_dir() and not (fetched.dump / TOC_FILE).is_file():
        return 0
    if fetched.manifest.format in ("custom", "directory"):
        return len(read_toc(fetched.dump).entries)
    return 4 * len(fetched.manifest.fingerprints)  # a script of an earlier release has no table of contents beside it
