"""The back end for S3 servers: nothing else in tmi_ops knows boto."""
