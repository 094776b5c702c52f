"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# A machine may be busy: how long an example takes says nothing about the code.
settings.register_profile("fairlead", deadline=None)
settings.load_profile("fairlead")
