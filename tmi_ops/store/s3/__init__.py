"""The back end for S3 servers: no other part of tmi_ops uses boto."""
