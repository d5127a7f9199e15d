"""The shadow, continuous verification: a server that needs only the store replays the archive and reports how far."""
