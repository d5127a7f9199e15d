"""The doctor: what is wrong, why, and the exact fix, from the settings to the schedules, link by link."""
