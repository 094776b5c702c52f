"""Hyper-parameter search inside a training: the space a recipe declares, trials in processes, and what was found."""
