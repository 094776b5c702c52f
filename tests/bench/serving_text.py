"""A classifier of BERT-base's size on two cores: our int8 path beside torch, on lengths as in real text."""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.engines import load_engine
from services.batching.batcher import Batcher
from services.batching.executor import Executor
from services.batching.queue_items import BatchLimits
from services.request_options import RequestOptions
from tests.bench import report
from tests.bench.serving_models import publish

if TYPE_CHECKING:
    from tests.bench.serving import Arena

TEXTS = 48
THREADS = 2


def lengths() -> list[int]:
    """Tokens per text, 10 to 256, most of them short: the shape of news and messages."""
    rng = np.random.default_rng(11)
    return np.clip(rng.lognormal(4.1, 0.7, TEXTS), 10, 256).astype(int).tolist()


class _Quiet:
    """Notes how much of the batches is padding."""

    def __init__(self, padded: Callable[[Sequence[int]], int]) -> None:
        self._padded, self.tokens, self.computed = padded, 0, 0

    def shed(self, reason: str) -> None: ...

    def batched(self, waits: Sequence[float], rows: int, lengths: Sequence[int]) -> None:
        self.tokens += sum(lengths)
        self.computed += self._padded(lengths)


def _ours(engine: Any, ids: list[list[int]]) -> tuple[float, float]:
    """Sequences per second and the share of padding, through the batcher with two workers."""
    executor, observer = Executor(THREADS, lambda err: None), _Quiet(engine.padded)
    limits = BatchLimits(rows=8, pending=10_000)
    batcher: Batcher[list[int], Any] = Batcher(lambda rows: list(engine.predict_ids(rows)), executor, limits, observer)

    async def story() -> float:
        start = time.perf_counter()
        asked = [batcher.submit(row, kind="text", rows=1, lengths=[len(row)], options=RequestOptions()) for row in ids]
        await asyncio.gather(*asked)
        return time.perf_counter() - start

    seconds = asyncio.run(story())
    executor.stop()
    return len(ids) / seconds, 1 - observer.tokens / observer.computed


def _torch(model: Any, ids: list[list[int]], size: int) -> float:
    """Sequences per second of torch in batches of `size`, in the order of arrival, padded to the longest."""
    import torch

    start = time.perf_counter()
    with torch.inference_mode():
        for at in range(0, len(ids), size):
            rows = ids[at : at + size]
            padded = np.zeros((len(rows), max(map(len, rows))), np.int64)
            for row, values in enumerate(rows):
                padded[row, : len(values)] = values
            model(torch.from_numpy(padded))
    return len(ids) / (time.perf_counter() - start)


def text(arena: Arena, rounds: int, seconds: float) -> list[report.Row]:
    """Sequences per second; the engines take turns in every round."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import BertConfig, BertForSequenceClassification

    from pipelines.training.quantise import MODEL, quantise
    from pipelines.training.transformer import Network, export_transformer

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    torch.set_num_threads(THREADS)
    torch.manual_seed(1)
    model = Network(BertForSequenceClassification(BertConfig())).eval()  # BERT-base, two classes
    engines = {}
    for name in ("fp32", "int8"):
        source = arena.folder / f"text-{name}"
        if name == "fp32":
            export_transformer(model, source / "model")
        else:
            shutil.copytree(arena.folder / "text-fp32", source)
            quantise(arena.folder / "text-fp32" / "model" / MODEL, source / "model" / MODEL)
        Tokenizer(models.WordLevel({"[PAD]": 0}, unk_token="[PAD]")).save(str(source / "model" / "tokenizer.json"))
        engines[name] = load_engine(_bundle(source, arena.folder / f"bundles-{name}"), threads=1)
    rng = np.random.default_rng(5)
    ids = [rng.integers(1, 30_000, length).tolist() for length in lengths()]
    speeds: dict[str, list[float]] = {}
    padding = []
    for _ in range(rounds):
        for name in engines:
            speed, share = _ours(engines[name], ids)
            speeds.setdefault(f"fairlead {name}", []).append(speed)
            padding.append(share)
        for size in (1, 8):
            speeds.setdefault(f"torch fp32, batches of {size}", []).append(_torch(model, ids, size))
    return _rows(speeds, padding)


def _bundle(source: Path, root: Path) -> Any:
    golden = [{"inputs": {"text": ""}, "probabilities": [0.5, 0.5]}]
    signature = {"inputs": [{"name": "text", "dtype": "string"}], "classes": ["no", "yes"]}
    return publish(source, golden, root, name="text", modality="text", engine="onnx", signature=signature)


def _rows(speeds: dict[str, list[float]], padding: list[float]) -> list[report.Row]:
    middle = {name: statistics.median(values) for name, values in speeds.items()}
    best = max(value for name, value in middle.items() if name.startswith("torch"))
    case = "BERT-base classifier, 10 to 256 tokens, 2 cores"
    rows = [report.Row(case=case, contestant=name, value=value, unit="sequences/s") for name, value in middle.items()]
    ratio = middle["fairlead int8"] / best
    return [
        *rows,
        report.Row(case="int8 over the better torch", contestant="fairlead", value=ratio, unit="times", goal=">= 2.5"),
        report.Row(case="padding", contestant="fairlead", value=max(padding) * 100, unit="% of tokens", goal="<= 5"),
    ]
