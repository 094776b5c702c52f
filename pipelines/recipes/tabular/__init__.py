"""Recipes that learn from a table of values."""
