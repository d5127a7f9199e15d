"""Checks that archived WAL continues every base backup without a gap, up to the newest LSN."""
