"""Where a cluster's WAL is in the store, below the environment's root::

    wal/<system identifier>/archive.json                      the cluster and its segment size; written once
    wal/<system identifier>/<NNNNNNNN>.history.zst            the history of timeline NNNNNNNN
    wal/<system identifier>/<timeline>/<segment>.zst          a whole segment; never changed
    wal/<system identifier>/<timeline>/<segment>.partial.<offset>.zst  pieces of the open segment; see `pieces.py`
    wal/<system identifier>/lease.json                        which receiver is running
    wal/<system identifier>/records.json                      which timelines were followed, and the breaks
    wal/<system identifier>/index.zst                         which segments exist, derived; see `index.py`
    wal/<system identifier>/links/<timeline>-<number>.zst     the segments' metadata, derived; see `chapters.py`

`.zst` is zstd, inside age if the store is encrypted: `age -d -i KEY FILE | zstd -d` gives the file PostgreSQL wants.
"""

from __future__ import annotations

import re

from tmi_ops.errors import OpsError
from tmi_ops.postgres.wal_files import HISTORY_NAME, PARTIAL_SUFFIX

WAL = "wal"
SUFFIX = ".zst"
HISTORY_SUFFIX = ".history"
LINKS_FOLDER = "links"
_PIECE = r"(?:\.[0-9A-F]{8}(?:-[0-9A-F]{8})?)?"
_SEGMENT_FILE = re.compile(
    rf"([0-9A-F]{{8}})[0-9A-F]{{16}}({re.escape(PARTIAL_SUFFIX)}{_PIECE}|\.[0-9A-F]{{8}}\.backup)?"
)


def cluster_folder(system_identifier: str) -> str:
    """The folder of one cluster's WAL, without a trailing slash."""
    return f"{WAL}/{system_identifier}"


def description_key(system_identifier: str) -> str:
    return f"{cluster_folder(system_identifier)}/archive.json"


def lease_key(system_identifier: str) -> str:
    return f"{cluster_folder(system_identifier)}/lease.json"


def records_key(system_identifier: str) -> str:
    return f"{cluster_folder(system_identifier)}/records.json"


def index_key(system_identifier: str) -> str:
    return f"{cluster_folder(system_identifier)}/index.zst"


def file_key(system_identifier: str, name: str) -> str:
    """The key of a file by its PostgreSQL name (a segment, `.history` or `.backup`) or by the name of a piece.

    Raises:
        OpsError: it is not the name of a file that PostgreSQL archives, nor of a piece.
    """
    if HISTORY_NAME.fullmatch(name):
        return f"{cluster_folder(system_identifier)}/{name}{SUFFIX}"
    match = _SEGMENT_FILE.fullmatch(name)
    if match is None:
        raise OpsError(f"{name!r} is not the name of a WAL file.", hint="give it as PostgreSQL passes it in %f or %p")
    return f"{cluster_folder(system_identifier)}/{match[1]}/{name}{SUFFIX}"
