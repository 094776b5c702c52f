"""A loaded model: its request fields, its scoring, and the log of its predictions."""
