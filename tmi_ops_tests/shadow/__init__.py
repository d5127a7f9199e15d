"""The shadow: what it decides, and a real one beside a real server."""
