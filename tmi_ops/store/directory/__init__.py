"""The back end for a directory of this machine: a laptop, a mounted disk, a test."""
