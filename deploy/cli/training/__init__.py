"""``fairlead run``, ``runs`` and ``tasks``, on this machine or on a cluster."""
