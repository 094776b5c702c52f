"""Libraries that load when a test first uses them: each worker collects every file, and runs the tests of a few."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

import pytest


class Late:
    """A module under its name, imported at the first look at something in it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, wanted: str) -> Any:
        if wanted.startswith("_"):  # pytest looks at whatever a file names
            raise AttributeError(wanted)
        return getattr(importlib.import_module(self._name), wanted)


def needs(*packages: str) -> None:
    """Skip a file whose packages are not installed, without loading those that are."""
    if lacking := [name for name in packages if find_spec(name) is None]:
        pytest.skip(f"not installed: {', '.join(lacking)}", allow_module_level=True)
