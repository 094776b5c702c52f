"""Text models as weights, run by transformers on a CPU or a GPU with the same code.

The files of ``model/`` beside those of `contracts.text_engine`: ``config.json`` and ``model.safetensors`` of a
classifier as transformers saves it. Weights and their sizes are all that is taken from a file: neither pickles nor
code are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from contracts.engine import Engine, EngineOptions, EngineSpec
from contracts.errors import PlatformError
from contracts.text_engine import WORKING_NUMBERS, TextEngine

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from contracts.bundle import Bundle

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def read_classifier(folder: Path, classes: int) -> Any:
    """The classifier of a folder, in fp32.

    Raises:
        PlatformError: ``code="bad_weights"``: it has no such weights, some are missing, or they are of other sizes.
    """
    model, found = read_pretrained("AutoModelForSequenceClassification", folder)
    if absent := sorted(found["missing_keys"]):
        raise bad_weights(folder, f"{absent[0]} is missing")
    if model.config.num_labels != classes:
        raise bad_weights(folder, f"it has {model.config.num_labels} classes, expected {classes}")
    return model.eval()


def read_pretrained(kind: str, folder: Path, **settings: Any) -> tuple[Any, dict[str, Any]]:
    """A model of a folder by the class `kind` of transformers, in fp32, and what was missing; none of its code is run.

    Raises:
        PlatformError: ``code="bad_weights"``: there is none, or it cannot be read.
    """
    import torch
    import transformers
    from safetensors import SafetensorError

    if not (folder / WEIGHTS).is_file() or not (folder / CONFIG).is_file():
        raise bad_weights(folder, f"{CONFIG} or {WEIGHTS} is not there")
    try:
        made: tuple[Any, dict[str, Any]] = getattr(transformers, kind).from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            dtype=torch.float32,
            **settings,
        )
    except (OSError, ValueError, RuntimeError, ImportError, KeyError, AttributeError, SafetensorError) as err:
        raise bad_weights(folder, (str(err).strip() or type(err).__name__).splitlines()[0]) from err
    return made


def bad_weights(folder: Path, detail: str) -> PlatformError:
    """The error for a folder that has no such model."""
    return PlatformError(
        f"no usable weights in {folder}",
        detail=detail,
        fix=f"give a folder with {CONFIG}, {WEIGHTS} and tokenizer.json, as transformers saves a model",
        code="bad_weights",
    )


class TorchTextEngine(TextEngine):
    """A classifier by torch. On a GPU in the bundle's precision, on a CPU in fp32; see `contracts.engine.Engine`.

    `EngineOptions.device`: ``auto`` takes a GPU when there is one; else a name that torch knows.
    `EngineOptions.compiled`: let torch.compile fuse it, which needs a C compiler and takes a minute of the start.
    """

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        import torch

        super().__init__(bundle)
        torch.set_num_threads(options.threads)
        self.device = _device(options.device)
        gpu = self.device.type == "cuda"
        self.dtype = torch.bfloat16 if gpu and self._spec.gpu_precision == "bf16" else torch.float32
        if gpu:
            self.working_numbers = 128 * WORKING_NUMBERS  # 2 GB of fp32
        model = read_classifier(bundle.model_path, self._width).to(self.device, self.dtype)
        self._model: Any = torch.compile(model, dynamic=True) if options.compiled else model

    def _run(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        import torch

        with torch.inference_mode():
            ids = torch.from_numpy(self._pad(rows)).to(self.device, non_blocking=True)
            scores = self._model(input_ids=ids, attention_mask=(ids != self._spec.pad_id).long()).logits
            found: NDArray[np.float64] = scores.float().softmax(-1).double().cpu().numpy()
        return found


def _device(wanted: str) -> torch.device:
    import torch

    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_available()):
        there = "cpu, cuda" if torch.cuda.is_available() else "cpu"
        raise PlatformError(
            f"cannot serve on device {wanted!r}",
            detail=f"this machine has: {there}",
            fix="choose one of these, or auto",
            code="no_device",
        )
    return device


def load(bundle: Bundle, options: EngineOptions) -> Engine:
    """See `contracts.engines.load_engine`."""
    return TorchTextEngine(bundle, options)


ENGINE = EngineSpec(
    name="torch", modality="text", extra="services,torch", image="VARIANT=gpu", batch_rows=64, load=load
)
