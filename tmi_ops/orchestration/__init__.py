"""The Dagster layer: one file per capability."""
