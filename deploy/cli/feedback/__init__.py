"""Labels from files, and the log of predictions: compacted, listed, forgotten."""
