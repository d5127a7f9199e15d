"""Sets up and removes the protection of a database: `tmi-ops init` and `tmi-ops uninit`."""
