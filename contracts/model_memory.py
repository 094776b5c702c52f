"""What memory a model that writes takes, and whether a machine or a GPU has it; checked before weights are loaded.

Estimated from the head of the GGUF file: its weights, as they are or in the two bytes that a GPU gives each; keys and
values of all conversations, two bytes a number; and what computing needs beside, which was measured with llama.cpp.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError
from contracts.gguf import Head
from contracts.quantities import memory, shown

FRONT = 192 << 20  # the service's own process
_PROCESS, _ROWS = 64 << 20, 512  # llama.cpp's, and the tokens that it reads at once
_STEP = 256  # tokens that a window is told in
_LEAST_BITS = 2


@dataclass(frozen=True, kw_only=True)
class Need:
    """Bytes. Attributes: weights.  cache: keys and values of all conversations.  beside: what computing needs."""

    weights: int
    cache: int
    beside: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.beside


def parameters(head: Head) -> int:
    """Numbers of all weights."""
    return sum(math.prod(shape) for shape in head.shapes.values())


def cache_bytes(head: Head, tokens: int) -> int:
    """Keys and values of so many tokens; 0 where the file tells no layers and heads, as of models without attention."""
    layers, heads = head.of_model("block_count"), head.of_model("attention.head_count")
    if not isinstance(layers, int) or not heads:
        return 0
    pairs: Any = head.of_model("attention.head_count_kv", heads)
    told: Sequence[int] = pairs if isinstance(pairs, tuple) else [int(pairs)] * layers
    first = heads[0] if isinstance(heads, tuple) else heads
    width = int(head.of_model("embedding_length", 0)) // max(1, int(first))
    key, value = (int(head.of_model(f"attention.{name}_length", width)) for name in ("key", "value"))
    return sum(told) * (key + value) * 2 * tokens


def needed(head: Head, *, window: int, slots: int, caches: int = 1) -> Need:
    """Of the service with llama.cpp in its processes.

    Args:
        window: tokens of a conversation.
        slots: conversations at a time.
        caches: processes with a cache of all conversations: 3 where adapters are changed, else 1.
    """
    width, inner = (int(head.of_model(f"{name}_length", 0)) for name in ("embedding", "feed_forward"))
    beside = FRONT + caches * (_PROCESS + 4 * _ROWS * (4 * inner + 8 * width))
    return Need(weights=head.size, cache=caches * cache_bytes(head, window * slots), beside=beside)


def check_room(
    name: str, head: Head, limit: int, *, window: int, slots: int, caches: int = 1, where: str = "", key: str = ""
) -> None:
    """Refuse a model that needs more memory than there is.

    Args:
        limit: bytes.
        where: what has the limit, for the message.  key: the setting that raises it.

    Raises:
        PlatformError: ``code="too_large"``, with all numbers and what would fit.
    """
    need = needed(head, window=window, slots=slots, caches=caches)
    if need.total <= limit:
        return
    rest = limit - need.weights - need.beside
    one, most = cache_bytes(head, 1) * caches, []
    if key:
        most.append(f"set {key} to {memory(need.total)}")
    if (few := rest // max(1, one * window)) >= 1:
        most.append(f"set slots to {few}")
    if (short := rest // max(1, one * slots) // _STEP * _STEP) >= _STEP:
        most.append(f"set window to {short}")
    bits = math.floor(8 * (limit - need.cache - need.beside) / max(1, parameters(head)))
    now = 8 * need.weights / max(1, parameters(head))
    if _LEAST_BITS <= bits < now:
        most.append(f"take weights of at most {bits} bits (these have {now:.1f})")
    raise PlatformError(
        f"{name} is too large for {where or 'this machine'}: it needs {shown(need.total)}, there are {shown(limit)}",
        detail=f"weights {shown(need.weights)}, conversations {shown(need.cache)} ({window} tokens x {slots} slots"
        + (f" x {caches} processes" if caches > 1 else "")
        + f"), beside them {shown(need.beside)}",
        fix=(", or ".join(most) if most else f"give {memory(need.total)} of memory, or take a smaller model")
        + "; where the estimate is wrong, set memory_check to false",
        code="too_large",
    )


def check_gpu(name: str, head: Head, limit: int, *, window: int, gpus: int, share: float) -> None:
    """Refuse a model whose weights and one conversation do not fit into GPUs, where vLLM would end at its start.

    Args:
        limit: bytes of one GPU.  share: of them that vLLM takes.  gpus: that share the model.

    Raises:
        PlatformError: ``code="too_large"``.
    """
    weights, cache = 2 * parameters(head), cache_bytes(head, window)
    beside = gpus * (2 << 30)  # activations and graphs of a GPU, about
    have = int(limit * share * gpus)
    if weights + cache + beside <= have:
        return
    left = limit * share - (2 << 30)
    enough = math.ceil((weights + cache) / left) if left > 0 else 0
    short = (have - weights - beside) // max(1, cache_bytes(head, 1)) // _STEP * _STEP
    ways = [f"set gpu.count and engine.tensorParallel to {1 << (enough - 1).bit_length()}"] if enough else []
    ways += [f"set config.window to {short}"] if short >= _STEP else []
    raise PlatformError(
        f"{name} is too large for {gpus} GPUs of {shown(limit)}: it needs {shown(weights + cache + beside)}",
        detail=f"weights {shown(weights)} in 16 bits, one conversation {shown(cache)} ({window} tokens), beside them "
        f"{shown(beside)}; vLLM takes {share:g} of the memory, {shown(have)}",
        fix=", or ".join([*ways, "take a smaller model"]),
        code="too_large",
    )


def memory_limit() -> int:
    """Bytes of memory that a process here may have: of the machine, or of its container."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            found = min(found, int(Path(file).read_text()))
    return found
