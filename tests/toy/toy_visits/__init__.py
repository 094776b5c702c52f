"""A package that adds a task with features of its own: online ones, and one that is made with the request."""
