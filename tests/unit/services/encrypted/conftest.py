"""Linear models as bundles, and clients of services that answer encrypted rows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.bundle import Bundle, Input
from contracts.engines import load_engine
from contracts.tabular_engine import matrix
from deploy.cli.serving.encrypted import EncryptedClient
from pipelines.training.onnx_tabular import LinearForm, save_linear
from pipelines.training.scorecard import ScorecardConfig, fit_scorecard, save_scorecard
from tests.unit.services.conftest import BundleMaker, Served, Server

INPUTS: list[dict[str, Any]] = [
    {"name": "amount", "dtype": "float64"},
    {"name": "age", "dtype": "float64"},
    {"name": "kind", "dtype": "string", "categories": ["a", "b", "c"]},
]
SIGNATURE: dict[str, Any] = {"inputs": INPUTS, "classes": ["good", "bad"]}
DECISION = {"positive": "bad", "threshold": 0.4, "false_positive_cost": 1.0, "false_negative_cost": 5.0}
BINARY = {"content-type": "application/octet-stream"}
PUBLIC = {"save_secret_key": False, "save_relin_keys": False, "save_galois_keys": False}
MODELS = ("platt", "isotonic", "scorecard")


def rows_of(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows with values missing, and categories that no model has seen."""
    rng = np.random.default_rng(seed)
    rows = [
        {"amount": float(rng.lognormal(5, 2)), "age": float(rng.normal(40, 12)), "kind": str(rng.choice(list("abcx")))}
        for _ in range(count)
    ]
    for row in rows:
        for name in row:
            if rng.random() < 0.1:
                row[name] = None
    return rows


def columns_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "amount": np.array([row["amount"] for row in rows], dtype=np.float64),
        "age": np.array([row["age"] for row in rows], dtype=np.float64),
        "kind": np.array([row["kind"] for row in rows], dtype=object),
    }


@pytest.fixture
def linear(make_bundle: BundleMaker, tmp_path: Path) -> Callable[[str], Bundle]:
    """A bundle of one of `MODELS`, as recipes write them."""

    def make(kind: str) -> Bundle:
        shutil.rmtree(tmp_path / "source", ignore_errors=True)
        model = tmp_path / "source" / "model"
        model.mkdir(parents=True)
        inputs = [Input(**item) for item in INPUTS]
        rows = rows_of(400, seed=7)
        columns = columns_of(rows)
        if kind == "scorecard":
            data = matrix(inputs, columns)
            y = (np.nan_to_num(np.log(data[:, 0]), nan=5.0) > 5).astype(np.int64)
            card = fit_scorecard(inputs, data, y, np.ones(len(y)), ScorecardConfig(), 0)
            save_scorecard(card, {"kind": "platt", "a": 0.9, "b": -0.1}, model)
        else:
            form = LinearForm(
                median=np.array([150.0, 40.0, 1.0]),
                mean=np.array([5.0, 3.7, 0.6]),
                deviation=np.array([1.9, 0.3, 0.4]),
                weights=np.array([1.25, -0.731, 0.4417]),
                absent=np.array([0.311, 0.0, -0.27]),
                bias=-0.37,
                log_scale=True,
            )
            isotonic = {"kind": "isotonic", "x": [-3.0, 0.0, 2.0], "y": [0.01, 0.3, 0.99]}
            save_linear(
                form, isotonic if kind == "isotonic" else {"kind": "platt", "a": 1.3, "b": 0.2}, model / "model.onnx"
            )
        engine = "scorecard" if kind == "scorecard" else "onnx"
        first = rows[0]
        given: dict[str, Any] = {"engine": engine, "decision": DECISION, "recipe": kind}
        bundle = make_bundle(SIGNATURE, [(first, [0.5, 0.5])], **given)
        answer = load_engine(bundle).predict(columns_of([first]))[0].tolist()
        return make_bundle(SIGNATURE, [(first, answer)], **given)

    return make


def client_of(served: Served, seen: list[bytes] | None = None) -> EncryptedClient:
    def ask(path: str, body: bytes | None) -> tuple[int, bytes]:
        if seen is not None:
            seen.append(body or b"")
        answer = served.client.get(path) if body is None else served.client.post(path, content=body, headers=BINARY)
        return answer.status_code, answer.content

    return EncryptedClient(ask)


@pytest.fixture
def logistic(linear: Callable[[str], Bundle], serve_bundle: Server) -> Served:
    return serve_bundle(linear("platt"), encrypted={"enabled": True})
