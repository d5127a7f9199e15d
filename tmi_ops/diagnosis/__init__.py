"""What is wrong, why, and what exactly mends it: the chain from the settings to the schedules, link by link."""
