"""Serves lists of items for people."""
