"""The recovery sheet, for print: where the backups are, and the keys that decrypt them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tmi_ops.private import write_private
from tmi_ops.settings import StoreSettings
from tmi_ops.store.encryption import read_identities
from tmi_ops.store.keys import SHEET_FILE, MadeKeys
from tmi_ops.store.trust import TrustedKey, trusted_entry


def recovery_sheet(
    environment: str, store: StoreSettings, age_keys: Sequence[str], trusted: Sequence[TrustedKey], now: datetime
) -> str:
    """The text of the sheet, one page. It contains private age keys: never store it on a disk that is backed up."""
    where = f" at {store.public_endpoint}" if store.endpoint_url else ""
    place = store.address(environment) + ("" if store.directory else f"{where}  (region {store.region})")
    return "\n".join(
        [
            f"RECOVERY SHEET OF {environment.upper()}          written {now.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
            "",
            "Print this sheet, keep it in a safe away from the database and the store, then delete the file.",
            "Anybody who has it can read every backup. Without these keys, encrypted backups are lost.",
            "",
            f"Backups:      {place}",
            "              The store's access keys are not on this sheet.",
            f"To recover:   with tmi_ops, run `tmi-ops -e {environment} recover everything`",
            "              without tmi_ops, follow RESTORE.md in the store; it needs standard tools only",
            "",
            "Private age keys (put these lines into the file TMI_OPS_AGE_IDENTITY_FILE names):",
            *(f"  {key}" for key in age_keys),
            "",
            "Trusted public signing keys (the value of TMI_OPS_TRUSTED_KEYS):",
            *(f"  {trusted_entry(one)}" for one in trusted),
            "",
            "Check that RESTORE.md is genuine before you follow it, and each manifest.json likewise:",
            *(f"  minisign -V -P {one.key.text} -m RESTORE.md" for one in trusted if "writer" in one.roles),
            "",
        ]
    )


def write_sheet(made: MadeKeys, environment: str, store: StoreSettings, now: datetime) -> Path:
    """Write the sheet for new keys beside them, readable by its owner only."""
    sheet = made.directory / SHEET_FILE
    private = [str(one) for one in read_identities(made.identity_file)]
    write_private(sheet, recovery_sheet(environment, store, private, made.trusted, now))
    return sheet
