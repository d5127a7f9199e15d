"""What pages of evidence have in common: one file each, nothing fetched from anywhere, fit for print."""
