"""What an asset returns, and numbers in the units and the precision that a person reads."""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dagster import FloatMetadataValue, MarkdownMetadataValue, MaterializeResult, MetadataValue

from tmi_ops.words import markdown_words, printable

# Dagster knows the return type by identity, so it must not be subscripted; strict typing wants the parameter.
if TYPE_CHECKING:
    Materialized = MaterializeResult[None]
else:
    Materialized = MaterializeResult


def seconds(value: float) -> FloatMetadataValue:
    """A duration to the hundredth."""
    return MetadataValue.float(round(value, 2))


def megabytes(size: float) -> FloatMetadataValue:
    """A size given in bytes."""
    return MetadataValue.float(in_megabytes(size))


def in_megabytes(size: float) -> float:
    """The same as a cell of a table."""
    return round(size / 1e6, 2)


def bullets(sentences: Iterable[str], nothing: str = "nothing") -> MarkdownMetadataValue:
    """A list of sentences that may quote the database or the store: they make no link, image or tag."""
    return MetadataValue.md("\n".join(f"- {markdown_words(one)}" for one in sentences) or nothing)


def sql_block(statements: Sequence[str]) -> str:
    """Statements as a block of code that nothing in them ends."""
    text = printable("\n".join(statements))
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sql\n{text}\n{fence}"
