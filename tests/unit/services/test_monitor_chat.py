"""Chats through the log of their service to a monitor's verdict: tokens of answers, and what the guard finds."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from contracts.baseline import describe_answers, describe_inputs
from contracts.bundle import BundleDocument, write_bundle
from contracts.guard_rules import RULES, find
from contracts.problems.generation import GenerationOutput, Written
from pipelines.evaluation.generation import EVALUATION
from services.chat.answers import Asked, Choice, Form
from services.chat.guard import Guard
from services.chat.modality import MODALITY
from services.chat.runtime import ChatRuntime
from services.metrics.service_metrics import ServiceMetrics
from services.metrics.token_metrics import TokenMetrics
from services.model.prediction_log import PredictionLog, new_id
from services.monitor.model_monitor import ModelMonitor
from services.monitor.rules import Rules
from services.problems.generation import SERVING
from services.settings import GuardSettings, PredictionLogSettings

ROWS = 400
OUTPUT = GenerationOutput(max_characters=200)
FIELDS: dict[str, Any] = {
    "name": "tiny", "task": "tiny", "recipe": "r", "modality": "chat", "engine": "llamacpp",
    "signature": {"inputs": [{"name": "text", "dtype": "string"}], "output": OUTPUT.model_dump()},
    "gate": {"passed": True, "checks": []},
    "lineage": {"code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": "t"},
}  # fmt: skip


def chats(seed: int, personal: float = 0.03, longer: float = 1.0) -> list[tuple[str, Written]]:
    """Questions, some with an address, and answers of about 20 tokens; the words are as many when tokens are not."""
    rng, made = np.random.default_rng(seed), []
    for _ in range(ROWS):
        asked = "write to ann@example.com" if rng.random() < personal else "write to nobody"
        words = int(rng.integers(5, 15))
        made.append((asked, Written("word " * words, tokens=int(longer * (words * 2 + rng.integers(0, 5))))))
    return made


def baseline(engine: Any) -> dict[str, Any]:
    """As the step `evaluate` makes it."""
    rows, inputs = chats(1), BundleDocument.model_validate({**FIELDS, "files": {}}).signature.inputs
    answers: Any = np.empty(ROWS, dtype=object)
    answers[:] = [text for _, text in rows]
    columns = {"text": np.array([asked for asked, _ in rows], dtype=object)}
    said = EVALUATION.watched(OUTPUT, None, answers) | EVALUATION.asked(engine, columns, inputs, answers)
    return {"rows": ROWS, "inputs": describe_inputs(columns, inputs), "answer": describe_answers(said)}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({}, set()),
        ({"personal": 0.3}, {"(guard)"}),
        ({"longer": 1.7}, {"(tokens)"}),
    ],
    ids=["as they were", "personal data", "more tokens"],
)
def test_chats_that_changed_are_told_by_what_changed(tmp_path: Path, change: dict[str, float], named: set[str]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "baseline.json").write_text(json.dumps(baseline(SimpleNamespace(guarded=True))))
    bundle = write_bundle(source, tmp_path / "bundles", FIELDS)
    runtime = ChatRuntime(MODALITY)
    runtime.metrics = metrics = ServiceMetrics("tiny", "1")
    metrics.predicting(SERVING.labels(OUTPUT), (), SERVING.distribution(OUTPUT, []))
    runtime.guard = Guard(GuardSettings())
    runtime.tokens = TokenMetrics(metrics, "tiny", "1", 1, runtime.guard.names)
    runtime._model = SimpleNamespace(serving=SERVING, bundle=bundle)  # type: ignore[assignment]
    about = {"model": "tiny", "version": "1", "digest": bundle.digest[:12]}
    signature = bundle.document.signature
    runtime.log = log = PredictionLog(PredictionLogSettings(folder=str(tmp_path / "log")), signature, about, metrics)
    for asked, text in chats(2, **change):
        choice = Choice(texts=[str(text)], finish="stop", tokens=text.tokens)
        hits = tuple(one.rule.name for one in find(asked, RULES))
        form = Form(new_id(), "tiny", "1", False)
        usage = {"prompt_tokens": 9, "completion_tokens": text.tokens}
        work = Asked(path="/", body={}, form=form, choices=[choice], prompt=asked, tokens=1, hits=hits)
        runtime.record(work, usage, perf_counter())
    log.close()
    [file] = (tmp_path / "log").rglob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert all("ann@example" not in str(line) for line in lines)
    begun = datetime.fromisoformat(lines[0]["time"])
    for at, line in enumerate(lines):  # over a minute, for a burst is no drift
        line["time"] = (begun + timedelta(seconds=60 * at / len(lines))).isoformat(timespec="milliseconds")
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    monitor = ModelMonitor(str(tmp_path / "log"), str(tmp_path / "bundles"), "tiny", Rules())
    [report] = monitor.look(begun + timedelta(seconds=70))["versions"].values()
    assert report["inputs"]["(guard)"]["rows"] == report["inputs"]["(tokens)"]["rows"] == ROWS
    assert {name for name in report["drifted"] if name.startswith("(")} == named


def test_engines_without_a_guard_or_a_count_of_tokens_have_neither() -> None:
    said = baseline(SimpleNamespace())["answer"]
    assert "guard" not in said
    plain: Any = np.array(["one", "two"], dtype=object)
    assert EVALUATION.watched(OUTPUT, None, plain).keys() == {"answer", "repetition", "language", "refused"}
    assert SERVING.watched({"words": 3}).keys() == {"answer", "repetition", "language", "refused"}
