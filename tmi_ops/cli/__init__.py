"""The `tmi-ops` command. It never imports dagster."""
