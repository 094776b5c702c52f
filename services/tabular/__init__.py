"""Serves models over rows: features come in the request or from the online store."""
