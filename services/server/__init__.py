"""The HTTP server of every modality: routes, limits, keys, documentation, from loading a model to draining."""
