"""A trained transformer as files that are served: an ONNX graph with rows and tokens left open, or its weights."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import torch

from contracts.text import TextSpec
from contracts.transformer import TextTransformer, TransformerConfig, write_weights

__all__ = ["TextTransformer", "TransformerConfig", "export_transformer"]


def export_transformer(
    model: TextTransformer,
    folder: Path,
    *,
    engine: Literal["onnx", "torch"] = "onnx",
    max_characters: int = 20_000,
    max_tokens: int = 0,
    gpu_precision: Literal["fp32", "bf16"] = "fp32",
) -> None:
    """Write the model and ``text.json`` into `folder`, beside which ``tokenizer.json`` must lie.

    max_tokens: longer texts are cut; 0: at the length of the model. On a CPU few tokens may be padding: a longer run
    costs its tokens, so that rows of other lengths run apart. On a GPU a second run costs more than some padding.
    """
    config = model.config
    folder.mkdir(parents=True, exist_ok=True)
    model.eval()
    if engine == "onnx":
        _write_graph(model, folder / "model.onnx")
    else:
        write_weights(model, folder)
    spec = TextSpec(
        max_characters=max_characters,
        max_tokens=min(max_tokens or config.max_tokens, config.max_tokens),
        pad_id=config.pad_id,
        numbers_per_row=config.width,
        numbers_per_token=2 * config.inner,
        max_padding=0.05 if engine == "onnx" else 0.3,
        explain="occlusion",
        gpu_precision=gpu_precision,
    )
    (folder / "text.json").write_text(spec.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _write_graph(model: TextTransformer, file: Path) -> None:
    # Its length must not be 1: the exporter would take the dimension for a constant.
    example = torch.ones(2, 7, dtype=torch.long, device=next(model.parameters()).device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is called legacy
        torch.onnx.export(
            model,
            (example,),
            str(file),
            dynamo=False,
            opset_version=17,
            input_names=["ids"],
            output_names=["probabilities"],
            dynamic_axes={"ids": {0: "rows", 1: "tokens"}, "probabilities": {0: "rows"}},
        )
