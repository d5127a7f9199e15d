"""The S3 backup store: streaming objects, layout, manifests and catalogue, encryption."""
