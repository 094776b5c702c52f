"""Watches deployed models: what the prediction log holds beside what the bundle calls normal."""
