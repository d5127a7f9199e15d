"""The embedded stack: real servers from Python packages, for laptops, tests and the demo."""
