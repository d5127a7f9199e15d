"""Whether the archived WAL continues every base backup without a hole, up to its newest LSN."""
