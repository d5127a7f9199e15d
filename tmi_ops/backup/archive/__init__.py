"""pg_dump archives: their table of contents and their data blocks, read as they stream by."""
