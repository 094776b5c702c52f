"""Serves models that draw."""
