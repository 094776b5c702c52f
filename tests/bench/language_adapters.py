"""Adapters behind one endpoint: the time of requests to many, in turn with as many requests to one."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from contracts.adapter import Adapter
from contracts.bundle import sha256_file
from contracts.gguf import read_head
from contracts.lora import ALPHA, HEADS, LAYER
from services.adapters.store import AdapterStore
from tests.bench.report import Row

MANY, TOKENS, RANK, AT_ONCE = 16, 32, 8, 8
_TARGETS = {"self_attn.q_proj": "attn_q", "self_attn.v_proj": "attn_v"}
Ask = Callable[[Any, int, int, str], Any]


def publish(weights: Path, folder: Path, model: str = "tiny") -> list[str]:
    """Random adapters over weights, small enough to change little; their names."""
    head, base, generator = read_head(weights), sha256_file(weights), np.random.default_rng(1)
    heads = [int(head.of_model(f"attention.head_count{kind}")) for kind in ("", "_kv")]
    store, names = AdapterStore(str(folder), model, base), [f"a{number:02d}" for number in range(MANY)]
    for name in names:
        tensors: dict[str, Any] = {ALPHA: np.full(1, 16, np.float32), HEADS: np.array(heads)}
        for layer in range(int(head.of_model("block_count"))):
            for theirs, ours in _TARGETS.items():
                rows, columns = head.shapes[f"blk.{layer}.{ours}.weight"]
                stem = f"base_model.model.model.layers.{layer}.{theirs}.lora_"
                tensors[f"{stem}A.weight"] = generator.normal(0, 0.02, (RANK, columns)).astype(np.float32)
                tensors[f"{stem}B.weight"] = generator.normal(0, 0.02, (rows, RANK)).astype(np.float32)
        entity = store.entity_of(name)
        made = Adapter(layer=LAYER, base=base, entity=entity, version=1, tensors=tensors)
        store.put(entity, 1, made.to_bytes())
    return names


def measured(address: Any, process: psutil.Process, names: Sequence[str], ask: Ask, rounds: int) -> list[Row]:
    """The seconds of as many requests as there are adapters, each to one of its own, and all to the first one."""
    url, numbers = f"http://{address.host}:{address.port}/v1/completions", iter(range(1, 1 << 30))
    start = time.perf_counter()
    httpx.post(url, json={"model": f"tiny:{names[0]}", "prompt": "a", "max_tokens": 1}, timeout=60).raise_for_status()
    loading = time.perf_counter() - start
    for name in names:  # so that all are there
        httpx.post(url, json={"model": f"tiny:{name}", "prompt": "a", "max_tokens": 1}, timeout=60).raise_for_status()
    seconds: dict[tuple[str, int], list[float]] = {}
    worked: dict[tuple[str, int], list[float]] = {}
    for number in range(rounds):
        for at_once in (1, AT_ONCE):
            for kind in ("many", "one") if number % 2 else ("one", "many"):
                asked = names if kind == "many" else [names[0]] * len(names)
                before = _worked(process)
                seconds.setdefault((kind, at_once), []).append(_seconds(address, asked, at_once, ask, numbers))
                worked.setdefault((kind, at_once), []).append(_worked(process) - before)
    rows = [Row(case="first request with an adapter", contestant="fairlead", value=loading, unit="s", goal="")]
    for at_once in (1, AT_ONCE):
        many, one = (statistics.median(seconds[kind, at_once]) for kind in ("many", "one"))
        work = [statistics.median(worked[kind, at_once]) for kind in ("many", "one")]
        case = f"{MANY} adapters, {at_once} at once"
        rows += [
            Row(case=case, contestant="many", value=many, unit="s", goal=""),
            Row(case=case, contestant="one", value=one, unit="s", goal=""),
            Row(case=case, contestant="many / one", value=many / one, unit="ratio", goal="<= 1.3"),
            Row(case=case, contestant="many / one, processor", value=work[0] / work[1], unit="ratio", goal=""),
        ]
    return rows


def _worked(process: psutil.Process) -> float:
    """Processor seconds of the service and its engines."""
    return sum(sum(one.cpu_times()[:2]) for one in [process, *process.children(recursive=True)])


def _seconds(address: Any, names: Sequence[str], at_once: int, ask: Ask, numbers: Iterator[int]) -> float:
    async def story() -> None:
        left = iter(names)

        async def client() -> None:
            for name in left:
                await ask(address, next(numbers), TOKENS, f"tiny:{name}")

        await asyncio.gather(*(client() for _ in range(at_once)))

    start = time.perf_counter()
    asyncio.run(story())
    return time.perf_counter() - start
