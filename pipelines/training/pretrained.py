"""Pretrained models that transformers reads: weights are safetensors, and no code of a model is run."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError
from pipelines.training.device import import_torch


def import_transformers() -> Any:
    """The package, or how to get it."""
    import_torch()
    try:
        import transformers
    except ImportError as err:
        raise PlatformError(
            "transformers is not installed",
            detail="it reads and trains transformer models",
            fix="pip install 'fairlead[torch]'",
            code="missing_package",
        ) from err
    return transformers


def encoder_graph(folder: Path) -> Any:
    """The encoder of a folder with config.json and model.safetensors as an onnx.ModelProto.

    It has the inputs ``input_ids`` and ``attention_mask`` and the output ``last_hidden_state``.
    """
    transformers = import_transformers()
    import onnx
    import torch
    from torch import nn

    try:
        model = transformers.AutoModel.from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            attn_implementation="eager",  # plain matrix products, which can be made int8
            dtype=torch.float32,
        )
    except (OSError, ValueError, ImportError) as err:
        raise PlatformError(
            f"no usable weights in {folder}",
            detail=str(err).splitlines()[0],
            fix="give a folder with config.json and model.safetensors of an encoder, as transformers saves them",
            code="bad_weights",
        ) from err

    class States(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, mask: Any) -> Any:
            return self.model(input_ids=ids, attention_mask=mask).last_hidden_state

    # Two rows of seven tokens: the exporter would take a length of 1 for a constant.
    ids, mask = torch.ones(2, 7, dtype=torch.long), torch.ones(2, 7, dtype=torch.long)
    made = io.BytesIO()
    open_sizes = {0: "rows", 1: "tokens"}
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is called legacy
        torch.onnx.export(
            States().eval(),
            (ids, mask),
            made,
            dynamo=False,
            opset_version=17,
            input_names=["input_ids", "attention_mask"],
            output_names=["last_hidden_state"],
            dynamic_axes=dict.fromkeys(("input_ids", "attention_mask", "last_hidden_state"), open_sizes),
        )
    return onnx.load_from_string(made.getvalue())
