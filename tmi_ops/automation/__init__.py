"""Does what should run by itself run? Dagster's records, read without Dagster, and judged."""
