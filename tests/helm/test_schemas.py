"""Values of charts: one class, one documented file, and a schema that is made of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.schemas import charts, comments, values_schema

HELM = Path(__file__).parents[2] / "helm"
CHARTS = charts()


def described(schema: dict[str, Any], at: str = "") -> list[str]:
    """Paths of keys that nobody described."""
    found = []
    for key, node in schema.get("properties", {}).items():
        found += [] if node.get("description") else [at + key]
        found += described(node, f"{at}{key}.")
    return found


@pytest.mark.parametrize("chart", CHARTS)
def test_the_committed_schema_is_the_generated_one(chart: str) -> None:
    folder = HELM / chart
    generated = values_schema(CHARTS[chart], (folder / "values.yaml").read_text(encoding="utf-8"))
    assert json.loads((folder / "values.schema.json").read_text(encoding="utf-8")) == generated, "run: make schemas"


@pytest.mark.parametrize("chart", CHARTS)
def test_the_file_has_every_key_and_no_other(chart: str) -> None:
    CHARTS[chart].model_validate(yaml.safe_load((HELM / chart / "values.yaml").read_text(encoding="utf-8")))


@pytest.mark.parametrize("chart", CHARTS)
def test_every_key_is_described(chart: str) -> None:
    assert described(json.loads((HELM / chart / "values.schema.json").read_text(encoding="utf-8"))) == []


def test_every_chart_has_a_class_of_values() -> None:
    assert set(CHARTS) == {folder.name for folder in HELM.iterdir() if (folder / "values.yaml").exists()}


def test_a_comment_belongs_to_the_key_below_it() -> None:
    text = "# a word before\n# -- Outer, in\n# two lines.\nouter:\n  # plain\n  plain: 1\n  # -- Inner.\n  inner: 2\n"
    assert comments(text) == {("outer",): "Outer, in two lines.", ("outer", "inner"): "Inner."}
