"""The shadow: its decisions, and a real one beside a real server."""
