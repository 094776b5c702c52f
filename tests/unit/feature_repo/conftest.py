"""A small Feast repository on both plug-ins: two views of drivers, one of pairs, with every type of value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def repos() -> Any:
    """The module `tests/feature_stores.py`."""
    from tests import feature_stores

    return feature_stores


@pytest.fixture
def make_repo(repos: Any, tmp_path: Path) -> Callable[..., Any]:
    """A function from rows of history (and options) to a Feast store with everything applied."""

    def make(**options: Any) -> Any:
        return repos.make_store(tmp_path, **options)

    return make
