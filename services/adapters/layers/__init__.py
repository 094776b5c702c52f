"""Layers, by the problem that they are for."""
