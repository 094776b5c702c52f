"""Child processes and ports of this machine."""
