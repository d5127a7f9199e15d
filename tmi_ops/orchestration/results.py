"""What an asset returns, and numbers rounded and in units for people."""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dagster import FloatMetadataValue, MarkdownMetadataValue, MaterializeResult, MetadataValue

from tmi_ops.text import escaped_markdown, printable

# Dagster recognizes the return type by identity, so it must not be subscripted; strict typing wants the parameter.
if TYPE_CHECKING:
    Materialized = MaterializeResult[None]
else:
    Materialized = MaterializeResult


def seconds(value: float) -> FloatMetadataValue:
    """A duration, to the hundredth of a second."""
    return MetadataValue.float(round(value, 2))


def megabytes(size: float) -> FloatMetadataValue:
    """A size given in bytes."""
    return MetadataValue.float(in_megabytes(size))


def in_megabytes(size: float) -> float:
    """A size given in bytes, as the cell of a table."""
    return round(size / 1e6, 2)


def bullets(sentences: Iterable[str], nothing: str = "nothing") -> MarkdownMetadataValue:
    """A list of sentences. They may quote the database or the store, so Markdown in them is escaped."""
    return MetadataValue.md("\n".join(f"- {escaped_markdown(one)}" for one in sentences) or nothing)


def sql_block(statements: Sequence[str]) -> str:
    """Statements as a fenced code block, with a fence longer than any in them."""
    text = printable("\n".join(statements))
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sql\n{text}\n{fence}"
