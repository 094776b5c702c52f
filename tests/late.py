"""Libraries that load when a test first uses them: each worker collects every file, and runs the tests of a few."""

from __future__ import annotations

import importlib
from typing import Any


class Late:
    """A module under its name, imported at the first look at something in it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, wanted: str) -> Any:
        if wanted.startswith("_"):  # pytest looks at whatever a file names
            raise AttributeError(wanted)
        return getattr(importlib.import_module(self._name), wanted)
