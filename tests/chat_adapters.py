"""Adapters of the tiny Llama whose effect is known: after one letter comes another one than the base says."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from contracts.adapter import Adapter
from contracts.lora import ALPHA, HEADS, LAYER
from services.adapters.store import AdapterStore
from tests.tiny_llama import VOCABULARY, WIDTH

_HEAD = "base_model.model.lm_head.lora_{}.weight"


def after(before: str, comes: str, *, base: str, entity: str, version: int = 1) -> Adapter:
    """An adapter by which `comes` follows the letter `before`."""
    down, up = np.zeros((1, WIDTH), np.float32), np.zeros((len(VOCABULARY), 1), np.float32)
    down[0, VOCABULARY.index(before)] = 1
    up[VOCABULARY.index(comes), 0] = 50
    tensors = {_HEAD.format("A"): down, _HEAD.format("B"): up, ALPHA: np.ones(1, np.float32), HEADS: np.array([1, 1])}
    return Adapter(layer=LAYER, base=base, entity=entity, version=version, tensors=tensors)


def publish(folder: Path, model: str, name: str, comes: str, base: str, *, over: str = "", version: int = 1) -> None:
    """Put an adapter with a name, or of a person's hash, into a folder; `over`: the base that it says it is of."""
    entity = AdapterStore.entity_of(name) if AdapterStore.is_name(name) and len(name) != 32 else name
    adapter = after("w", comes, base=over or base, entity=entity, version=version)
    assert AdapterStore(str(folder), model, over or base).put(entity, version, adapter.to_bytes())
