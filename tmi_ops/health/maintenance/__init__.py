"""The upkeep that health asks for: planned from its readings, then done within limits."""
