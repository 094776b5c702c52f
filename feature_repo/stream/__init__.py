"""Rows of Kafka topics pushed into the feature store: ``python -m feature_repo.stream``."""
