"""Importing Feast without what this project does not use of it: a quarter of the time."""

from __future__ import annotations

import os
import sys
from typing import Any


def import_feast() -> None:
    """Import Feast with its run-time type checks off, without torch, and with usage reports off.

    Feast has typeguard rewrite some 240 functions when it is imported, and imports torch where it is installed, for a
    method that nothing here calls. Does nothing when Feast is imported already.
    """
    os.environ["FEAST_USAGE"] = "False"
    if "feast" in sys.modules:
        return
    import typeguard

    instrument = typeguard.typechecked
    typeguard.typechecked = _unchecked
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # makes `import torch` an ImportError
    try:
        import feast  # noqa: F401
    finally:
        typeguard.typechecked = instrument
        if hidden:
            del sys.modules["torch"]


def _unchecked(target: Any = None, **_: Any) -> Any:
    """In place of ``typeguard.typechecked``: leaves functions and classes as they are."""
    return target if target is not None else lambda later: later
