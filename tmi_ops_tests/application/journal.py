"""What the application was told is done: a line for each transaction, written when the database had answered."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """A row as a transaction left it. Rows that are never changed stay at version 1."""

    table: str
    id: str
    version: int


@dataclass(frozen=True)
class Write:
    """One transaction, by the clock of this machine. `acknowledged` is None where the answer to COMMIT was lost."""

    begun: datetime
    acknowledged: datetime | None
    rows: tuple[Row, ...]


class Journal:
    """A file of JSON lines; it outlives the process that writes it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def add(self, write: Write) -> None:
        line = json.dumps(
            {
                "begun": write.begun.isoformat(),
                "acknowledged": write.acknowledged.isoformat() if write.acknowledged else None,
                "rows": write.rows,
            }
        )
        with self.file.open("a") as file:
            file.write(line + "\n")

    def read(self) -> list[Write]:
        """Everything written so far; a line that is just being written is left for the next reading."""
        text = self.file.read_text() if self.file.exists() else ""
        return [_parsed(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _parsed(line: str) -> Write:
    fields = json.loads(line)
    acknowledged = fields["acknowledged"]
    return Write(
        datetime.fromisoformat(fields["begun"]),
        datetime.fromisoformat(acknowledged) if acknowledged else None,
        tuple(Row(*row) for row in fields["rows"]),
    )
