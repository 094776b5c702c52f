"""Serves models over images."""
