"""Recipes of models that chat."""
