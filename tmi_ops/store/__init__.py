"""The backup store: streaming objects, layout, manifests and catalogue, encryption, over a back end."""
