"""Which backups and which WAL may go, why everything else stays, and removing them so that a crash harms nothing."""
