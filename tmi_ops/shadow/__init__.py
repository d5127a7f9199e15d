"""Continuous proof: a server that lives from the store alone, replays the archive as it grows, and says how far."""
