"""``fairlead console``: the platform's page over what a profile has."""
