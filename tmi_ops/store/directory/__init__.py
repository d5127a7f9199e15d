"""The back end for a directory on this machine: a laptop, a mounted disk, a test."""
