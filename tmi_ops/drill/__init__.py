"""Drills: practice recoveries, measured and verified."""
