"""Recipes that learn to find objects in images."""
