"""Whether Dagster's schedules, sensors and queues work: its database, read without Dagster, and judged."""
