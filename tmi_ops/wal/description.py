"""The archive's description, an object that is written once: the size of its segments."""

from __future__ import annotations

import contextlib
import json

from tmi_ops.errors import ObjectExistsError, ObjectMissingError, StoreError
from tmi_ops.store.objects import ObjectStore
from tmi_ops.wal.layout import description_key

FORMAT_VERSION = 1


def read_segment_size(store: ObjectStore, system_identifier: str) -> int | None:
    """The cluster's wal_segment_size in bytes, from the archive's description. None if there is none yet.

    Raises:
        StoreError: the description cannot be read, or a newer release wrote it.
    """
    key = description_key(system_identifier)
    try:
        description = json.loads(store.get_bytes(key))
        version, size = int(description["format_version"]), int(description["wal_segment_size"])
    except ObjectMissingError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{key} cannot be read: {error}.", hint="restore an earlier version of the object") from None
    if version > FORMAT_VERSION:
        raise StoreError(
            f"{key} has format version {version}; this release reads up to {FORMAT_VERSION}.",
            hint="use the release of tmi_ops that wrote it, or a newer one",
        )
    return size


def describe_archive(store: ObjectStore, system_identifier: str, segment_size: int) -> None:
    """Write the archive's description, or check that the existing one is the same. May be repeated.

    Raises:
        StoreError: the existing one has another segment size.
    """
    facts = {
        "format_version": FORMAT_VERSION,
        "system_identifier": system_identifier,
        "wal_segment_size": segment_size,
    }
    found = read_segment_size(store, system_identifier)
    if found is None:
        with contextlib.suppress(ObjectExistsError):
            store.put_if_absent(description_key(system_identifier), json.dumps(facts, indent=2).encode() + b"\n")
        found = read_segment_size(store, system_identifier)
    if found != segment_size:
        raise StoreError(
            f"The archive of the cluster {system_identifier} has segments of {found} bytes, the server has segments of "
            f"{segment_size} bytes.",
            detail="The archive was not changed.",
            hint="archive this server under its own prefix (TMI_OPS_S3_PREFIX)",
        )
