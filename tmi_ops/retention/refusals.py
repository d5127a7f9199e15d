"""When retention does nothing at all, and the sentence that says why."""

from __future__ import annotations

from datetime import datetime, timedelta

from tmi_ops.error_codes import Code
from tmi_ops.errors import BackupError
from tmi_ops.retention.facts import RetentionFacts

CLOCKS_DIFFER = timedelta(minutes=10)
# A store that has got nothing for so long and for the whole window is not growing old: its backups have stopped, or a
# clock has jumped.
SILENCE = timedelta(days=3)


class RetentionRefusedError(BackupError):
    """Removing anything now could be a mistake, so nothing is removed."""

    default_code = Code.RETENTION_REFUSED


def require_sane_clocks(facts: RetentionFacts, window: timedelta, now: datetime) -> None:
    """Clock skew must not turn retention into deletion.

    Raises:
        RetentionRefusedError: our clock, the store's and the times in the store cannot all be right, or backups and
            WAL have stopped arriving.
    """
    if facts.store_now is not None and abs(now - facts.store_now) > CLOCKS_DIFFER:
        raise _refused(
            f"This machine's clock says {now:%Y-%m-%d %H:%M} UTC, the store's {facts.store_now:%Y-%m-%d %H:%M} UTC",
            "set the clock that is wrong (`timedatectl`), then prune again",
            Code.CLOCKS_DIFFER,
        )
    ahead = [backup for backup in facts.backups if backup.taken_at > now + CLOCKS_DIFFER]
    if ahead:
        raise _refused(
            f"{ahead[0].backup_id} has the time {ahead[0].taken_at:%Y-%m-%d %H:%M} UTC, which is in the future: this "
            f"machine's clock says {now:%Y-%m-%d %H:%M}",
            "compare the clocks of this machine, the database server and the store",
            Code.CLOCKS_DIFFER,
        )
    if facts.newest_at is not None and facts.newest_at > now + CLOCKS_DIFFER:
        raise _refused(
            f"The newest object in the store has the time {facts.newest_at:%Y-%m-%d %H:%M} UTC, which is in the future",
            "compare the clocks of this machine and the store",
            Code.CLOCKS_DIFFER,
        )
    if facts.newest_at is not None and now - facts.newest_at > max(SILENCE, window):
        raise _refused(
            f"The store has received no backup and no WAL since {facts.newest_at:%Y-%m-%d %H:%M} UTC "
            f"({(now - facts.newest_at).days} days): backups have stopped, or a clock has jumped",
            "take a backup (`tmi-ops backup logical`) and verify it (`tmi-ops verify latest`), then prune again",
            Code.BACKUPS_STOPPED,
        )


def _refused(what: str, hint: str, code: Code) -> RetentionRefusedError:
    return RetentionRefusedError(f"{what}.", detail="Nothing was deleted.", hint=hint, code=code)
