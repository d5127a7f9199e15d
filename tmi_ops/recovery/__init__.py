"""Reading from the store: restore, and the proof that a restore works."""
