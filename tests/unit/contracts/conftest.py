"""A small bundle to write, break and publish."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.bundle import Bundle, write_bundle


def fields(**changes: Any) -> dict[str, Any]:
    return {
        "name": "churn",
        "task": "churn",
        "recipe": "base",
        "modality": "tabular",
        "engine": "lightgbm",
        "signature": {"inputs": [{"name": "age", "dtype": "float64"}], "classes": ["stays", "leaves"]},
        "gate": {"passed": True, "checks": [], "reasons": []},
        "lineage": {
            "code_version": "c",
            "data_version": "d",
            "source": "s",
            "seed": 1,
            "created": "2026-01-01T00:00:00Z",
        },
        "metrics": {"roc_auc": 0.8},
        **changes,
    }


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Bundle]:
    """Write a bundle below tmp_path/bundles; keyword arguments replace fields of its document."""

    def make(root: Path | None = None, **changes: Any) -> Bundle:
        source = tmp_path / "source"
        (source / "model").mkdir(parents=True, exist_ok=True)
        (source / "model" / "model.txt").write_text("tree\n")
        golden = '{"inputs": {"age": 3}, "probabilities": [0.2, 0.8], "tolerance": 0.001}\n'
        (source / "golden.jsonl").write_text(golden)
        return write_bundle(source, root or tmp_path / "bundles", fields(**changes))

    return make
