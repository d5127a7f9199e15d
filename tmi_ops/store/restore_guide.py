"""RESTORE.md: how to restore with standard tools. It is kept in the store, for when tmi_ops is not available."""

from __future__ import annotations

from importlib.resources import files

from tmi_ops.errors import ObjectMissingError
from tmi_ops.store.objects import ObjectStore
from tmi_ops.store.signed import read_signature, write_over

GUIDE_KEY = "RESTORE.md"


def write_restore_guide(store: ObjectStore) -> bool:
    """Write RESTORE.md to the environment's root if it is missing or differs.

    Returns:
        Whether it was written.
    """
    text = restore_guide(store).encode()
    try:
        signed = store.trust.signing is None or read_signature(store, GUIDE_KEY) is not None
        if signed and store.get_bytes(GUIDE_KEY) == text:
            return False
    except ObjectMissingError:
        pass
    write_over(store, GUIDE_KEY, text, "guide")
    return True


def restore_guide(store: ObjectStore) -> str:
    """The guide, with this store's addresses in its commands."""
    text = (files("tmi_ops.store") / GUIDE_KEY).read_text(encoding="utf-8")
    words = {**store.backend.guide_values(), "ENVIRONMENT": store.root.rstrip("/").rpartition("/")[2]}
    for name, word in words.items():
        text = text.replace(f"@{name}@", word)
    return text
