"""Raw data to a gated bundle: tasks, steps, and the workflows that join them."""
