"""pg_dump's archives: what their table of contents says, and what their data blocks hold, read as they stream by."""
