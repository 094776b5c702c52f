"""Runs of workflows: what is asked for, the process, its progress, its files."""
