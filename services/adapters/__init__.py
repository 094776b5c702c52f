"""Personal parts over a shared model: kept, found, applied and learned."""
