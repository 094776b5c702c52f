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

from contracts.adapter import Adapter, read_adapter
from contracts.bundle import sha256_file
from contracts.gguf import read_head
from contracts.lora import ALPHA, HEADS, LAYER, to_gguf
from services.adapters.store import AdapterStore
from tests.bench.report import Row

MANY, TOKENS, RANK, AT_ONCE, EACH = 16, 32, 8, 8, 8
_TARGETS = {"self_attn.q_proj": "attn_q", "self_attn.v_proj": "attn_v"}
Ask = Callable[..., Any]  # `tests.bench.language.ask`


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


def waiting(ours: Any, process: psutil.Process, bare: Any, names: Sequence[str], ask: Ask, rounds: int) -> list[Row]:
    """The seconds of `EACH` requests to each adapter, all at once, and of as many to the first one; ours, llama.cpp.

    They come in turn: one for each adapter, then the next for each. Our service lets those of one adapter go together.

    Args:
        bare: llama.cpp with the same adapters, which has as many slots and no service before it.
    """
    numbers, seconds, worked = iter(range(1 << 20, 1 << 30)), dict[str, list[float]](), dict[str, list[float]]()
    server = psutil.Process(bare.pid)
    asked = {"many": list(names) * EACH, "one": [names[0]] * (len(names) * EACH)}
    stories = [(who, kind) for kind in asked for who in ("fairlead", "llama.cpp")]
    for number in range(rounds):
        for who, kind in stories if number % 2 else stories[::-1]:
            ours_asks = who == "fairlead"
            before = _worked(process if ours_asks else server)
            told = asked[kind] if ours_asks else [names.index(name) for name in asked[kind]]
            took = _seconds(ours if ours_asks else bare, told, len(told), ask, numbers)
            seconds.setdefault(f"{who} {kind}", []).append(took)
            worked.setdefault(f"{who} {kind}", []).append(_worked(process if ours_asks else server) - before)
    case, rows = f"{MANY} adapters, {EACH} requests each at once", list[Row]()
    for who in ("fairlead", "llama.cpp"):
        many, one = (statistics.median(seconds[f"{who} {kind}"]) for kind in ("many", "one"))
        work = [statistics.median(worked[f"{who} {kind}"]) for kind in ("many", "one")]
        goal = "<= 1.3" if who == "fairlead" else ""
        rows += [
            Row(case=case, contestant=f"{who}, many", value=many, unit="s", goal=""),
            Row(case=case, contestant=f"{who}, one", value=one, unit="s", goal=""),
            Row(case=case, contestant=f"{who}, many / one", value=many / one, unit="ratio", goal=goal),
            Row(case=case, contestant=f"{who}, processor", value=work[0] / work[1], unit="ratio", goal=""),
        ]
    return rows


def files(store: Path, weights: Path, names: Sequence[str], folder: Path, model: str = "tiny") -> list[str]:
    """The adapters as llama.cpp reads them."""
    found, made = AdapterStore(str(store), model, sha256_file(weights)), list[str]()
    for name in names:
        adapter = read_adapter(found.last(found.entity_of(name)).data)
        file = folder / f"{name}.gguf"
        file.write_bytes(to_gguf(adapter))
        made.append(str(file))
    return made


def _worked(process: psutil.Process) -> float:
    """Processor seconds of the service and its engines."""
    return sum(sum(one.cpu_times()[:2]) for one in [process, *process.children(recursive=True)])


def _seconds(address: Any, told: Sequence[Any], at_once: int, ask: Ask, numbers: Iterator[int]) -> float:
    """Of requests to adapters: names of ours, or places in llama.cpp."""

    async def story() -> None:
        left = iter(told)

        async def client() -> None:
            for one in left:
                chosen = {"model": f"tiny:{one}"} if isinstance(one, str) else {"lora": [{"id": one, "scale": 1.0}]}
                await ask(address, next(numbers), TOKENS, **chosen)

        await asyncio.gather(*(client() for _ in range(at_once)))

    start = time.perf_counter()
    asyncio.run(story())
    return time.perf_counter() - start
