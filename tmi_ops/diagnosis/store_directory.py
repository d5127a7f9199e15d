"""Checks of a store that is a directory: that it is there, keeps its promises, and is no only copy."""

from __future__ import annotations

import shutil
import socket
from contextlib import suppress

from tmi_ops.checks.finding import Answer, critical, fine, warning
from tmi_ops.diagnosis.chain import Link
from tmi_ops.diagnosis.context import DiagnosisContext
from tmi_ops.diagnosis.finding import Area
from tmi_ops.errors import ObjectExistsError, ObjectMissingError, StoreError
from tmi_ops.store.backend import Backend, IfAbsent, IfUnchanged
from tmi_ops.store.directory.opening import open_directory

PROBE = b"tmi-ops doctor writes this object to test the directory, and deletes it again.\n"
_GIB = 1 << 30


def look_at_directory(context: DiagnosisContext) -> Answer:
    """Whether it is there, and an object can be written, read back, protected from a second writer and deleted."""
    settings = context.settings.store
    try:
        backend = open_directory(settings, settings.root(context.settings.environment))
        broken = _try_out(backend)
    except StoreError as error:
        return critical(error.message, "no backup can be written or read", error.hint)
    if broken:
        return critical(broken, "the file system does not keep what backups depend on", "use a local file system")
    free = shutil.disk_usage(backend.directory).free / _GIB
    return fine(f"{backend.directory}: may write, read and delete; {free:,.0f} GiB are free")


def look_at_copies(context: DiagnosisContext) -> Answer:
    """Whether backups in a directory outlive what they are for."""
    if context.settings.environment != "production":
        return fine("a directory of this machine: whatever destroys its disk destroys the backups, too")
    return warning(
        "the store of production is a directory of this machine",
        "if it is on the database's disk or in its building, one accident takes both; and whoever has an account "
        "that may write there can remove every backup",
        "use a bucket (TMI_OPS_S3_BUCKET), or mount a disk of another machine there",
    )


def _try_out(backend: Backend) -> str:
    """What the directory does not do; empty: nothing."""
    key = f".doctor/{socket.gethostname()}"
    backend.put(key, PROBE)
    try:
        if backend.get(key)[0] != PROBE:
            return "an object read back differs from what was written"
        for condition in (IfAbsent(), IfUnchanged("none")):
            with suppress(ObjectExistsError):
                backend.put(key, PROBE, condition=condition)
                return "an object was overwritten although a condition forbade it"
    finally:
        kept = backend.delete([(key, None)])
    if kept:
        return f"the object could not be deleted: {kept[0].why}"
    try:
        backend.get(key)
    except ObjectMissingError:
        return ""
    return "the deleted object is still there"


DIRECTORY_LINKS = (
    Link("store-directory", "directory", Area.STORE, look_at_directory, ("store-settings",)),
    Link("store-copies", "place of the directory", Area.STORE, look_at_copies, ("store-directory",)),
)
