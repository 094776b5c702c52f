"""Rollouts: traffic moves to a new version of a model as far as its metrics allow."""
