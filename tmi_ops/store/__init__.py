"""The backup store: object streaming, layout, manifests, catalogue and encryption, on top of a back end."""
