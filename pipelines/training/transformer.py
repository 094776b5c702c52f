"""A transformer as files that are served: an ONNX graph with rows and tokens left open, or its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from contracts.text_engine import TextSpec
from pipelines.training.onnx_export import graph
from pipelines.training.pretrained import classifier_of, encoder_of, longest


class Network(nn.Module):
    """Token ids (rows, tokens), padded on the right, to the scores of the classes by a classifier of transformers."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.pad_id = int(model.config.pad_token_id)

    def forward(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        scores: Tensor = self.model(input_ids=ids, attention_mask=(ids != self.pad_id).long()).logits
        return scores


class LstmNetwork(nn.Module):
    """As `Network`, of an encoder: a bidirectional LSTM over the states of its tokens, dropout, and pooling.

    hidden: states of the LSTM in each direction.
    """

    def __init__(self, encoder: Any, classes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.model = encoder
        self.pad_id = int(encoder.config.pad_token_id)
        width = encoder.config.hidden_size
        self.forwards = nn.LSTM(width, hidden, batch_first=True)
        self.backwards = nn.LSTM(width, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4 * hidden, classes)

    def forward(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        inside = ids != self.pad_id
        states = self.dropout(self.model(input_ids=ids, attention_mask=inside.long()).last_hidden_state)
        count = inside.sum(dim=1, keepdim=True).clamp(min=1)
        # Each row turned round within its own length, as in the recipe embedding_lstm.
        turned = (count - 1 - torch.arange(ids.shape[1], device=ids.device)[None]).clamp(min=0)[:, :, None]
        back = self.backwards(states.gather(1, turned.expand(-1, -1, states.shape[2])))[0]
        back = back.gather(1, turned.expand(-1, -1, back.shape[2]))
        both = torch.cat([self.forwards(states)[0], back], dim=2)
        real = inside[:, :, None]
        highest = both.masked_fill(~real, -1e9).amax(dim=1)
        mean = both.masked_fill(~real, 0.0).sum(dim=1) / count
        scores: Tensor = self.head(self.dropout(torch.cat([highest, mean], dim=1)))
        return scores


def shaped(shape: Mapping[str, Any], classes: int, hidden: int, dropout: float) -> nn.Module:
    """A network with random weights of the `shape` that a configuration of transformers has; hidden: see `LstmNetwork`,
    0 without an LSTM.

    Raises:
        ValueError, KeyError, TypeError: it is no such configuration.
    """
    if hidden:
        return LstmNetwork(encoder_of(shape, dropout), classes, hidden, dropout)
    return Network(classifier_of(shape, classes, dropout))


class _Served(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, ids: Tensor) -> Tensor:
        probabilities: Tensor = self.network(ids).float().softmax(-1)
        return probabilities


class _States(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        found: Tensor = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return found


def export_transformer(
    network: nn.Module,
    folder: Path,
    *,
    engine: Literal["onnx", "torch"] = "onnx",
    max_characters: int = 20_000,
    max_tokens: int = 0,
    gpu_precision: Literal["fp32", "bf16"] = "fp32",
) -> None:
    """Write a `Network`, or one like it, and ``text.json`` into `folder`, beside which ``tokenizer.json`` must lie.

    max_tokens: longer texts are cut; 0: at the length of the model. On a CPU few tokens may be padding: a longer run
    costs its tokens, so that rows of other lengths run apart. On a GPU a second run costs more than some padding.
    """
    model: Any = network.model
    folder.mkdir(parents=True, exist_ok=True)
    if engine == "onnx":
        (folder / "model.onnx").write_bytes(_graph(_Served(network), model, ["ids"], "probabilities"))
    else:
        model.save_pretrained(folder)
    spec = TextSpec(
        max_characters=max_characters,
        max_tokens=min(max_tokens or longest(model), longest(model)),
        pad_id=model.config.pad_token_id,
        numbers_per_row=model.config.hidden_size,
        numbers_per_token=2 * getattr(model.config, "intermediate_size", 4 * model.config.hidden_size),
        max_padding=0.05 if engine == "onnx" else 0.3,
        explain="occlusion",
        gpu_precision=gpu_precision,
    )
    (folder / "text.json").write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")


def encoder_graph(model: Any) -> Any:
    """A model without a head as an onnx.ModelProto: ``input_ids``, ``attention_mask`` to ``last_hidden_state``."""
    import onnx

    return onnx.load_from_string(_graph(_States(model), model, ["input_ids", "attention_mask"], "last_hidden_state"))


def _graph(served: nn.Module, model: Any, inputs: Sequence[str], output: str) -> bytes:
    # Plain matrix products, which ONNX Runtime quantises.
    attention = model.config._attn_implementation
    model.set_attn_implementation("eager")
    # Lengths must not be 1, which the exporter would take for constants.
    example = torch.full((2, 7), 2, device=next(model.parameters()).device)
    given = (example, torch.ones_like(example))[: len(inputs)]
    sizes = {0: "rows", 1: "tokens"}
    axes = {**dict.fromkeys(inputs, sizes), output: sizes if output != "probabilities" else {0: "rows"}}
    made = graph(served, given, inputs, [output], axes)
    model.set_attn_implementation(attention)
    return made
