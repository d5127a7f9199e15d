"""Shared parts of evidence pages: printable HTML files without external references."""
