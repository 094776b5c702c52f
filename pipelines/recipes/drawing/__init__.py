"""Recipes of models that draw."""
