"""Configurations that can train, for any task of their kind; none of them knows a task."""
