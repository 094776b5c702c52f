"""Recipes that make an index of documents, and learn when it answers a question."""
