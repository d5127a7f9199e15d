"""The probes, a file for each question or for a few that read the same."""
