"""Where a cluster's WAL lies in the store, below the environment's root::

    wal/<system identifier>/archive.json                      what cluster this is; written once
    wal/<system identifier>/<NNNNNNNN>.history.zst            where timeline NNNNNNNN came from
    wal/<system identifier>/<timeline>/<segment>.zst          a whole segment; never changed
    wal/<system identifier>/<timeline>/<segment>.partial.<offset>.zst  the open segment in pieces; see `pieces.py`
    wal/<system identifier>/lease.json                        who receives right now
    wal/<system identifier>/records.json                      which timelines were followed, and where the WAL breaks
    wal/<system identifier>/index.zst                         which segments there are, derived; see `index.py`
    wal/<system identifier>/links/<timeline>-<number>.zst     what their metadata says, derived; see `chapters.py`

`.zst` is zstd, inside age where the store is encrypted: `age -d -i KEY FILE | zstd -d` gives the file PostgreSQL wants.
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
    """The folder of one cluster's WAL, without a slash at its end."""
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
    """The key of a file by the name PostgreSQL gives it: a segment, `.history` or `.backup`; or by a piece's.

    Raises:
        OpsError: PostgreSQL archives no file of such a name.
    """
    if HISTORY_NAME.fullmatch(name):
        return f"{cluster_folder(system_identifier)}/{name}{SUFFIX}"
    match = _SEGMENT_FILE.fullmatch(name)
    if match is None:
        raise OpsError(f"{name!r} is not the name of a WAL file.", hint="give it as PostgreSQL passes it in %f or %p")
    return f"{cluster_folder(system_identifier)}/{match[1]}/{name}{SUFFIX}"
