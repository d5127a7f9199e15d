"""Redis: which keys to drop and to keep after the database is recovered, and checks of the cache."""
