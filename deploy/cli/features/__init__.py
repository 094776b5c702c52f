"""``fairlead features``."""
