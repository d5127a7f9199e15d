"""The embedded stack: real servers from wheels, for laptops, tests and the demo."""
