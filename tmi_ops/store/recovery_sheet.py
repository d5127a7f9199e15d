"""The sheet of paper that recovers when every machine is gone: where the backups are, and the keys that open them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tmi_ops.private import write_private
from tmi_ops.settings import StoreSettings
from tmi_ops.store.encryption import read_identities
from tmi_ops.store.keys import SHEET_FILE, MadeKeys
from tmi_ops.store.trust import TrustedKey, trusted_word


def recovery_sheet(
    environment: str, store: StoreSettings, age_keys: Sequence[str], trusted: Sequence[TrustedKey], now: datetime
) -> str:
    """Text of one page. It holds private keys of age: for paper and a safe, never for a disk that is backed up."""
    root = "/".join(part for part in (store.bucket or "BUCKET", store.prefix, environment) if part)
    where = f" at {store.public_endpoint}" if store.endpoint_url else ""
    return "\n".join(
        [
            f"RECOVERY SHEET OF {environment.upper()}          written {now.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
            "",
            "Print it, lock it away where neither the database nor the store is, then delete the file.",
            "Who holds it can read every backup. Nobody can recover an encrypted backup without it.",
            "",
            f"Backups:      s3://{root}/{where}  (region {store.region})",
            "              The access keys of the store are not written here.",
            f"What to do:   RESTORE.md there, with stock tools; or `tmi-ops -e {environment} recover everything`",
            "",
            "Private keys of age (TMI_OPS_AGE_IDENTITY_FILE holds these lines):",
            *(f"  {key}" for key in age_keys),
            "",
            "Public keys that sign (TMI_OPS_TRUSTED_KEYS holds these words):",
            *(f"  {trusted_word(one)}" for one in trusted),
            "",
            "To check that RESTORE.md and a manifest are ours, before you run or restore anything:",
            *(f"  minisign -V -P {one.key.text} -m RESTORE.md" for one in trusted if "writer" in one.roles),
            "",
        ]
    )


def write_sheet(made: MadeKeys, environment: str, store: StoreSettings, now: datetime) -> Path:
    """Put the sheet of keys that were just made beside them, readable by their owner alone."""
    sheet = made.directory / SHEET_FILE
    private = [str(one) for one in read_identities(made.identity_file)]
    write_private(sheet, recovery_sheet(environment, store, private, made.trusted, now))
    return sheet
