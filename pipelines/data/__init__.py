"""Data before a model learns from them: sources read in chunks, values cast and checked, versions on disk."""
