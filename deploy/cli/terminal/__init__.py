"""Basics of the terminal: tables, JSON, errors, shared options, commands to paste."""
