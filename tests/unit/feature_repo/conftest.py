"""A small Feast repository on both plug-ins: two views of drivers, one of pairs, with every type of value."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_REPO = Path(__file__).parents[2] / "feature_stores.py"


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("fairlead_test_feature_stores", _REPO)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def repos() -> Any:
    """The module `tests/feature_stores.py`."""
    return _load()


@pytest.fixture
def make_repo(repos: Any, tmp_path: Path) -> Callable[..., Any]:
    """A function from rows of history (and options) to a Feast store with everything applied."""

    def make(**options: Any) -> Any:
        return repos.make_store(tmp_path, **options)

    return make
