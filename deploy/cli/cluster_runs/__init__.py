"""Runs on a cluster: submitted, followed, found, restarted."""
