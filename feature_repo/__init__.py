"""Feast definitions, one file per domain."""
