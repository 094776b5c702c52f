"""What the tuning of a chat model holds in memory, by formula: weights, gradients, optimiser, activations, logits.

For decoders of Llama's kind (RMSNorm, rotary positions, gated feed-forward). The parts are those of Korthikanti et al.
2022 (Reducing Activation Recomputation), counted for this architecture and without attention scores, which torch's
fused attention does not keep.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipelines.training.chat_tuning import LoraConfig, TuningConfig

FLOAT, HALF = 4, 2  # bytes
_FOUR_BITS = 0.516  # bytes of a weight in NF4 with scales that are quantised themselves (Dettmers et al. 2023)
_ADAM = 2 * FLOAT  # bytes of each weight that is trained
_LOGITS = 3 * FLOAT  # of each: the logits, their logarithms, and the gradient


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A decoder as its ``config.json`` says it.

    Attributes:
        hidden, inner: widths of the stream and of the feed-forward.  keys: width of all keys (or values) of a token.
    """

    hidden: int
    inner: int
    layers: int
    keys: int
    vocabulary: int
    tied: bool

    @property
    def linear(self) -> int:
        """Weights of the layers' matrices, which four bits hold."""
        return self.layers * (2 * self.hidden**2 + 2 * self.hidden * self.keys + 3 * self.hidden * self.inner)

    @property
    def others(self) -> int:
        """Weights of embeddings, head and norms."""
        heads = 1 if self.tied else 2
        return heads * self.vocabulary * self.hidden + (2 * self.layers + 1) * self.hidden

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.linear + self.others


@dataclass(frozen=True, kw_only=True)
class Held:
    """Bytes by what holds them."""

    weights: float
    gradients: float
    optimiser: float
    activations: float
    logits: float

    @property
    def total(self) -> int:
        """All of it."""
        return int(sum(asdict(self).values()))

    def as_dict(self) -> dict[str, int]:
        """As a document has it, with the total."""
        return {**{name: int(value) for name, value in asdict(self).items()}, "total": self.total}


def shape_of(folder: Path) -> Shape:
    """The shape of the model in a folder of transformers."""
    said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    heads = int(said["num_attention_heads"])
    head = int(said.get("head_dim") or said["hidden_size"] // heads)
    return Shape(
        hidden=int(said["hidden_size"]),
        inner=int(said["intermediate_size"]),
        layers=int(said["num_hidden_layers"]),
        keys=head * int(said.get("num_key_value_heads") or heads),
        vocabulary=int(said["vocab_size"]),
        tied=bool(said.get("tie_word_embeddings")),
    )


def trained_by(shape: Shape, lora: LoraConfig) -> int:
    """Weights that are trained: all, or the two matrices beside each target."""
    if not lora.rank:
        return shape.parameters
    ends = {"k_proj": shape.keys, "v_proj": shape.keys, "gate_proj": shape.inner, "up_proj": shape.inner}
    sides = [
        (shape.inner if name == "down_proj" else shape.hidden) + ends.get(name, shape.hidden) for name in lora.targets
    ]
    return shape.layers * lora.rank * sum(sides)


def held(shape: Shape, config: TuningConfig, lora: LoraConfig, tokens: int, *, half: bool) -> Held:
    """What a training step with a batch of `tokens`, padding included, holds at its peak.

    Args:
        half: products are bf16, as on a GPU; weights, gradients and optimiser are float32 in any case.
    """
    trained = trained_by(shape, lora)
    base = shape.linear * _FOUR_BITS + shape.others * FLOAT if lora.four_bits else shape.parameters * FLOAT
    size = HALF if half else FLOAT
    layer = _layer(shape, lora, size)
    one = shape.hidden * size
    kept = shape.layers * one + layer if config.gradient_checkpointing else shape.layers * layer
    return Held(
        weights=base + (trained * FLOAT if lora.rank else 0),
        gradients=trained * FLOAT,
        optimiser=trained * _ADAM,
        activations=tokens * kept,
        logits=tokens * shape.vocabulary * _LOGITS,
    )


def _layer(shape: Shape, lora: LoraConfig, size: int) -> float:
    """Bytes that a layer keeps of each token for its backward pass."""
    hidden, keys, inner = shape.hidden, shape.keys, shape.inner
    # Norms keep float32 whatever the products are: their input and their normalised output, twice.
    norms = 4 * hidden * FLOAT
    # The input of the projections, queries and keys before and after rotation, values, and what attention gives.
    attention = (hidden + 2 * hidden + 3 * keys + hidden) * size
    forward = (hidden + 4 * inner) * size  # its input; gate, its activation, up, and their product
    beside = 0.0
    if lora.rank and lora.dropout:  # an input of its own for every target, with the mask of its dropout
        wide = sum(inner if name == "down_proj" else hidden for name in lora.targets)
        beside = wide * (size + 1)
    return norms + attention + forward + beside


def alternatives(
    shape: Shape, config: TuningConfig, lora: LoraConfig, longest: int, sequences: int, *, half: bool
) -> list[tuple[str, int]]:
    """Settings that need less, with the bytes that they do, the least change first.

    Args:
        longest: tokens of the longest conversation.  sequences: of one conversation, two with preferences.
    """
    found: list[tuple[str, int]] = []

    def add(said: Mapping[str, object], changed: TuningConfig, matrices: LoraConfig) -> None:
        need = held(shape, changed, matrices, longest * sequences * changed.batch_size, half=half).total
        words = " ".join(f"--set {name}={str(value).lower()}" for name, value in said.items())
        found.append((words, need))

    if not config.gradient_checkpointing:
        add({"training.gradient_checkpointing": True}, replace(config, gradient_checkpointing=True), lora)
    if config.batch_size > 1:
        add({"training.batch_size": 1}, replace(config, batch_size=1), lora)
    both = replace(config, batch_size=1, gradient_checkpointing=True)
    smallest = {"training.batch_size": 1, "training.gradient_checkpointing": True}
    if both != config:
        add(smallest, both, lora)
    if not lora.rank:
        add({"lora.rank": 8, **smallest}, both, replace(lora, rank=8))
    if not lora.four_bits and half:
        add(
            {"lora.rank": lora.rank or 8, "lora.four_bits": True, **smallest},
            both,
            replace(lora, rank=lora.rank or 8, four_bits=True),
        )
    return found
