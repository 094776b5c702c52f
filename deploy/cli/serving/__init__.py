"""Models that answer on this machine: over HTTP, in this process, and requests to them."""
