"""Recipes that learn which items people take."""
