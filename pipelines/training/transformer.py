"""A transformer text classifier of BERT's shape, and its export to ONNX with rows and tokens left open.

Attention is written out: the graph then has plain matrix products, which ONNX Runtime quantises. Devlin et al., "BERT"
(2019), with the classifier on the first token.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from contracts.engine_text import TextSpec


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The size of the model; the defaults are BERT-base's.

    Attributes:
        pad_id: the token that fills rows on the right; it gets no attention.
    """

    vocabulary: int = 30_522
    classes: int = 2
    layers: int = 12
    width: int = 768
    heads: int = 12
    inner: int = 3072
    max_tokens: int = 512
    pad_id: int = 0


class _Layer(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, width = config.heads, config.width
        self.queries, self.keys, self.values = (nn.Linear(width, width) for _ in range(3))
        self.mixed, self.up, self.down = (
            nn.Linear(width, width),
            nn.Linear(width, config.inner),
            nn.Linear(config.inner, width),
        )
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        rows, tokens, width = x.shape
        shape = (rows, tokens, self.heads, width // self.heads)
        q, k, v = (part(x).view(shape).transpose(1, 2) for part in (self.queries, self.keys, self.values))
        scores = q @ k.transpose(2, 3) * (width // self.heads) ** -0.5 + mask
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(rows, tokens, width)
        x = self.first(x + self.mixed(mixed))
        return self.second(x + self.down(nn.functional.gelu(self.up(x))))


class TextTransformer(nn.Module):
    """Token ids (rows, tokens), padded on the right, to probabilities (rows, classes)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocabulary, config.width)
        self.places = nn.Embedding(config.max_tokens, config.width)
        self.norm = nn.LayerNorm(config.width)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.pooled, self.head = nn.Linear(config.width, config.width), nn.Linear(config.width, config.classes)

    def logits(self, ids: Tensor) -> Tensor:
        """Scores of the classes before they are made probabilities, for training."""
        mask = (ids == self.config.pad_id).float()[:, None, None, :] * -1e9
        places = torch.arange(ids.shape[1], device=ids.device)
        x = self.norm(self.words(ids) + self.places(places))
        for layer in self.layers:
            x = layer(x, mask)
        scores: Tensor = self.head(torch.tanh(self.pooled(x[:, 0])))
        return scores

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits(ids).softmax(-1)


def export_transformer(model: TextTransformer, folder: Path, *, max_characters: int = 20_000) -> None:
    """Write ``model.onnx`` and ``text.json`` into `folder`, beside which ``tokenizer.json`` must lie.

    Few tokens are padding: on a CPU a longer run costs its tokens, so that rows of other lengths run apart.
    """
    config = model.config
    folder.mkdir(parents=True, exist_ok=True)
    # Its length must not be 1: the exporter would take the dimension for a constant.
    example = torch.ones(2, 7, dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is called legacy
        torch.onnx.export(
            model.eval(),
            (example,),
            str(folder / "model.onnx"),
            dynamo=False,
            opset_version=17,
            input_names=["ids"],
            output_names=["probabilities"],
            dynamic_axes={"ids": {0: "rows", 1: "tokens"}, "probabilities": {0: "rows"}},
        )
    spec = TextSpec(
        max_characters=max_characters,
        max_tokens=config.max_tokens,
        pad_id=config.pad_id,
        numbers_per_row=config.width,
        numbers_per_token=2 * config.inner,
        max_padding=0.05,
        explain="occlusion",
    )
    (folder / "text.json").write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")
