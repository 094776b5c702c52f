"""Serves models that chat."""
