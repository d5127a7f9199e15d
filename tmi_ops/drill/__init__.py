"""Drills: a recovery for practice, measured and proven, so that the real one holds no surprise."""
