"""Writing to the store."""
