"""What an asset returns, and numbers in the units and the precision that a person reads."""

from typing import TYPE_CHECKING

from dagster import FloatMetadataValue, MaterializeResult, MetadataValue

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
    return MetadataValue.float(round(size / 1e6, 2))
