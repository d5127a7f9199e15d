"""What an asset returns."""

from typing import TYPE_CHECKING

from dagster import MaterializeResult

# Dagster knows the return type by identity, so it must not be subscripted; strict typing wants the parameter.
if TYPE_CHECKING:
    Materialized = MaterializeResult[None]
else:
    Materialized = MaterializeResult
