"""The contents of a backup, stored beside it as an object; encrypted if the dump is."""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError

from tmi_ops.backup.archive.contents import Contents
from tmi_ops.errors import RecoveryError
from tmi_ops.store.manifest import SequenceRange, TableFingerprint

CONTENTS_OBJECT = "contents.json"
_CONTENTS: TypeAdapter[Contents] = TypeAdapter(Contents)


def contents_json(contents: Contents) -> bytes:
    """The JSON to store, indented because people read it in a disaster."""
    return _CONTENTS.dump_json(contents, indent=1) + b"\n"


def parse_contents(data: bytes) -> Contents:
    """Parse stored contents.

    Raises:
        RecoveryError: they cannot be parsed.
    """
    try:
        return _CONTENTS.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise RecoveryError(
            f"{CONTENTS_OBJECT} of the backup cannot be read: {'.'.join(map(str, first['loc']))}: {first['msg']}.",
            hint="restore another backup: `tmi-ops backups`",
        ) from None


def written_name(schema: str, name: str) -> str:
    """`schema.name`, with parts quoted that contain a dot or a quote, so that no two names look alike."""
    return ".".join(
        '"' + part.replace('"', '""') + '"' if "." in part or '"' in part else part for part in (schema, name)
    )


def fingerprints_of(contents: Contents) -> dict[str, TableFingerprint]:
    """Each table's rows and digest, for a manifest."""
    return {
        written_name(table.schema, table.name): TableFingerprint(rows=table.rows, digest=table.sha256)
        for table in contents.tables
    }


def sequence_values(contents: Contents) -> dict[str, SequenceRange]:
    """Each sequence's last value, 0 if it was never used, for a manifest."""
    values = {
        written_name(sequence.schema, sequence.name): sequence.last_value if sequence.called else 0
        for sequence in contents.sequences
    }
    return {name: SequenceRange(before=value, after=value) for name, value in values.items()}
