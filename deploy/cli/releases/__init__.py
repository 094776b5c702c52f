"""Helm releases of models on a cluster."""
