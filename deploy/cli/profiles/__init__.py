"""Profiles, homes and the values of models that are served on this machine."""
