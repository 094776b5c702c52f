"""Video: what tracks objects from frame to frame, and what happens in zones; clips and streams share it."""
