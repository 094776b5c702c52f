"""Prometheus metrics of a service."""
