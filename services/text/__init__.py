"""Serves models over text fields."""
