"""``fairlead demo``."""
