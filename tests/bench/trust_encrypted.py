"""Encrypted inference, a part of ``make bench-trust``: one core, both sides in one process, beside plain scoring.

Logistic regression and scorecard of 30 numbers, made up: what is measured depends on their count alone.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from contracts.bundle import Bundle, Input
from contracts.encrypted import SLOTS, Limits, Published, open_linear, pack, unpack
from contracts.engines import load_engine
from deploy.cli.serving.encrypted import EncryptedClient
from pipelines.evaluation.scoring import provisional
from pipelines.training.onnx_tabular import LinearForm, save_linear
from pipelines.training.scorecard import ScorecardConfig, fit_scorecard, save_scorecard
from services.tabular.ciphertexts import Evaluator
from tests.bench.report import Row

WIDTH, TIMES, SEED = 30, 15, 7
INPUTS = [Input(name=f"x{at}", dtype="float64") for at in range(WIDTH)]


class Service:
    """What the service does with a body, without HTTP; the time that it takes is kept."""

    def __init__(self, bundle: Bundle) -> None:
        linear = open_linear(bundle)
        self.evaluator, self.keys, self.seconds = Evaluator(linear), None, 0.0
        limits = Limits(bound=self.evaluator.bound, body_bytes=32 << 20, budget_rows=1 << 40, budget_seconds=1.0)
        document = bundle.document
        self.published = Published(
            model=document.name,
            version="1",
            form=linear.form,
            link=linear.link,
            signature=document.signature,
            decision=None,
            limits=limits,
        )

    def ask(self, path: str, body: bytes | None) -> tuple[int, bytes]:
        if body is None:
            return 200, self.published.model_dump_json().encode()
        if path.endswith("/keys"):
            self.keys = self.evaluator.keys(body)
            return 200, b"{}"
        began = time.perf_counter()
        head, *frames = unpack(body)
        asked = json.loads(head)
        compute = getattr(self.evaluator, asked["layout"])
        answer = pack(compute(self.keys, frames, asked["rows"], lambda: None))
        self.seconds = time.perf_counter() - began
        return 200, answer


def _bundles(home: Path) -> Iterator[tuple[str, Bundle]]:
    rng = np.random.default_rng(SEED)
    x = rng.normal(size=(4_000, WIDTH))
    weights = rng.normal(size=WIDTH) / 3
    y = (x @ weights + rng.logistic(size=len(x)) > 0).astype(np.int64)
    for name, engine in (("logistic", "onnx"), ("scorecard", "scorecard")):
        model = home / name / "model"
        model.mkdir(parents=True)
        if name == "logistic":
            zero = np.zeros(WIDTH)
            form = LinearForm(
                median=zero, mean=zero, deviation=zero + 1, weights=weights, absent=zero, bias=-0.2, log_scale=True
            )
            save_linear(form, {"kind": "platt", "a": 1.1, "b": 0.1}, model / "model.onnx")
        else:
            card = fit_scorecard(INPUTS, x, y, np.ones(len(y)), ScorecardConfig(), SEED)
            save_scorecard(card, {"kind": "platt", "a": 1.1, "b": 0.1}, model)
        fields = {
            "name": "bench",
            "task": "bench",
            "recipe": name,
            "modality": "tabular",
            "engine": engine,
            "signature": {"inputs": [item.model_dump() for item in INPUTS], "classes": ["no", "yes"]},
            "lineage": {"code_version": "", "data_version": "", "source": "", "seed": SEED},
        }
        yield name, provisional(home / name, fields)


def _median(call: Callable[[], Any], of: Callable[[], float] | None = None) -> float:
    """Seconds, the middle of some; `of` says what is to be counted of a call."""
    found = []
    for _ in range(TIMES):
        began = time.perf_counter()
        call()
        found.append(of() if of else time.perf_counter() - began)
    return float(np.median(found))


def encrypted(home: Path) -> Iterator[Row]:
    """Time, sizes and error of one row and of 4,095, beside the same model that sees them."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        for name, bundle in _bundles(home):
            yield from _measured(name, bundle)
    finally:
        os.sched_setaffinity(0, before)


def _measured(name: str, bundle: Bundle) -> Iterator[Row]:
    service, engine = Service(bundle), load_engine(bundle)
    client = EncryptedClient(service.ask)
    x = np.random.default_rng(SEED + 1).normal(size=(SLOTS - 1, WIDTH))
    columns = {item.name: x[:, at] for at, item in enumerate(INPUTS)}
    slots = service.published.form.slots(INPUTS, columns)
    first = {item: values[:1] for item, values in columns.items()}
    linear = open_linear(bundle)
    exact = slots @ linear.weights + linear.bias

    def row(case: str, contestant: str, value: float, unit: str, goal: str = "") -> Row:
        return Row(case=f"{name}, {WIDTH} inputs, {case}", contestant=contestant, value=value, unit=unit, goal=goal)

    goals = name == "logistic"
    one = client._scored("rows", slots[:1])
    yield row("one row, service", "encrypted", 1e3 * _median(
        lambda: client._scored("rows", slots[:1]), lambda: service.seconds
    ), "ms", "<= 40" if goals else "")  # fmt: skip
    yield row("one row, both sides", "encrypted", 1e3 * _median(lambda: client._scored("rows", slots[:1])), "ms")
    yield row("one row", "plain", 1e3 * _median(lambda: engine.predict(first)), "ms")
    many = client._scored("columns", slots)
    whole = _median(lambda: client._scored("columns", slots))
    yield row("packed, both sides", "encrypted", 1e3 * whole / len(slots), "ms/row", "<= 0.15" if goals else "")
    yield row("packed, service", "encrypted", 1e3 * service.seconds / len(slots), "ms/row")
    yield row("packed", "plain", 1e3 * _median(lambda: engine.predict(columns)) / len(slots), "ms/row")
    off = max(float(np.abs(one - exact[:1]).max()), float(np.abs(many - exact).max()))
    yield row("largest error of a sum", "encrypted", off, "log-odds" if goals else "points", "<= 1e-4")
    found, plain = service.published.link.probabilities(np.round(many, 5))[:, 1], engine.predict(columns)[:, 1]
    yield row("largest error of a probability", "encrypted", float(np.abs(found - plain).max()), "", "<= 1e-4")
    sent, received = client.sent, client.received
    client._scored("rows", slots[:1])
    yield row("one row, sent", "encrypted", (client.sent - sent) / 1e3, "kB")
    yield row("one row, back", "encrypted", (client.received - received) / 1e3, "kB")
    sent, received = client.sent, client.received
    client._scored("columns", slots)
    yield row("packed, sent", "encrypted", (client.sent - sent) / len(slots) / 1e3, "kB/row")
    yield row("packed, back", "encrypted", (client.received - received) / len(slots) / 1e3, "kB/row")
    yield row("public keys", "encrypted", len(client._public) / 1e3, "kB")
