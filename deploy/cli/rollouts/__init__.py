"""Rollouts on this machine: asked for, steered, shown."""
