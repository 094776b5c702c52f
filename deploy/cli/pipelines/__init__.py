"""Workflows that are published to Kubeflow Pipelines."""
