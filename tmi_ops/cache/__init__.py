"""Redis: what to drop and what to keep when the database jumps in time, and whether the cache is well."""
