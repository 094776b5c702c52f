"""How a registry says which version is the champion: an alias, and a tag for each promotion."""

from __future__ import annotations

import time

CHAMPION = "champion"
HISTORY = "fairlead.champion."
"""Begins the tags of a registered model that have a version that became champion, by the moment."""


def promotion_tag() -> str:
    """The name of a tag for a promotion now."""
    return f"{HISTORY}{time.time_ns():020d}"
