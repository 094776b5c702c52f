"""A package beside the platform: a task whose problem, engine and recipe are its own; counts are whole numbers."""
