"""How an environment is assembled."""
