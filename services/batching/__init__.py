"""Gathers requests into batches that share one call of a model."""
