"""Text models as weights and an architecture that is known here, run by torch on a CPU or a GPU with the same code.

The files of ``model/``: those of `contracts.text`, and ``config.json`` and ``model.safetensors`` of a BERT
classifier, named as Hugging Face's transformers names them, so that it reads them too. Weights and their sizes are all
that is taken from a file: a program saved by ``torch.export`` would be bound to one release of torch and to the device
that it was made on, and its loader still unpickles parts of it.

Imports torch: only what trains, and engine ``torch``, imports this.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from contracts.bundle import Bundle
from contracts.document import Document
from contracts.errors import PlatformError
from contracts.text import WORKING_NUMBERS, TextEngine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WEIGHTS, CONFIG = "model.safetensors", "config.json"
_KINDS = "bert.embeddings.token_type_embeddings.weight"
_PARTS = {
    "words": "bert.embeddings.word_embeddings",
    "places": "bert.embeddings.position_embeddings",
    "norm": "bert.embeddings.LayerNorm",
    "pooled": "bert.pooler.dense",
    "head": "classifier",
}
_LAYER = {
    "queries": "attention.self.query",
    "keys": "attention.self.key",
    "values": "attention.self.value",
    "mixed": "attention.output.dense",
    "first": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "second": "output.LayerNorm",
}
# In transformers' config.json: what this architecture has no other form of.
_FIXED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
_SIZES = {
    "vocabulary": "vocab_size",
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "inner": "intermediate_size",
    "max_tokens": "max_position_embeddings",
    "pad_id": "pad_token_id",
    "epsilon": "layer_norm_eps",
}


class TransformerConfig(Document):
    """The size of the model; the defaults are BERT-base's.

    Attributes:
        pad_id: the token that fills rows on the right; it gets no attention.  epsilon: of the layer norms.
    """

    vocabulary: int = 30_522
    classes: int = 2
    layers: int = 12
    width: int = 768
    heads: int = 12
    inner: int = 3072
    max_tokens: int = 512
    pad_id: int = 0
    epsilon: float = 1e-12


class _Layer(nn.Module):
    def __init__(self, config: TransformerConfig, dropout: float) -> None:
        super().__init__()
        self.heads, width = config.heads, config.width
        self.queries, self.keys, self.values = (nn.Linear(width, width) for _ in range(3))
        self.mixed, self.up, self.down = (
            nn.Linear(width, width),
            nn.Linear(width, config.inner),
            nn.Linear(config.inner, width),
        )
        self.first, self.second = (nn.LayerNorm(width, config.epsilon) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        # Attention is written out: an exported graph then has plain matrix products, which ONNX Runtime quantises.
        rows, tokens, width = x.shape
        shape = (rows, tokens, self.heads, width // self.heads)
        q, k, v = (part(x).view(shape).transpose(1, 2) for part in (self.queries, self.keys, self.values))
        scores = q @ k.transpose(2, 3) * (width // self.heads) ** -0.5 + mask
        mixed = (self.dropout(scores.softmax(-1)) @ v).transpose(1, 2).reshape(rows, tokens, width)
        x = self.first(x + self.dropout(self.mixed(mixed)))
        found: Tensor = self.second(x + self.dropout(self.down(nn.functional.gelu(self.up(x)))))
        return found


class TextTransformer(nn.Module):
    """Token ids (rows, tokens), padded on the right, to probabilities (rows, classes).

    Devlin et al., "BERT" (2019), with the classifier on the first token. `dropout` is for training alone.
    """

    def __init__(self, config: TransformerConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocabulary, config.width)
        self.places = nn.Embedding(config.max_tokens, config.width)
        self.norm = nn.LayerNorm(config.width, config.epsilon)
        self.layers = nn.ModuleList(_Layer(config, dropout) for _ in range(config.layers))
        self.pooled, self.head = nn.Linear(config.width, config.width), nn.Linear(config.width, config.classes)
        self.dropout = nn.Dropout(dropout)
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                nn.init.normal_(part.weight, std=0.02)
            if isinstance(part, nn.Linear):
                nn.init.zeros_(part.bias)

    def logits(self, ids: Tensor) -> Tensor:
        """Scores of the classes before they are made probabilities, for training."""
        places = torch.arange(ids.shape[1], device=ids.device)
        x = self.dropout(self.norm(self.words(ids) + self.places(places)))
        mask = (ids == self.config.pad_id).to(x.dtype)[:, None, None, :] * -1e9
        for layer in self.layers:
            x = layer(x, mask)
        scores: Tensor = self.head(self.dropout(torch.tanh(self.pooled(x[:, 0]))))
        return scores

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits(ids).float().softmax(-1)


def write_weights(model: TextTransformer, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``, which transformers' BertForSequenceClassification reads too."""
    config = model.config
    tensors = {theirs: value.detach().cpu().contiguous() for theirs, value in _renamed(model)}
    tensors[_KINDS] = torch.zeros(2, config.width)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    document = {"architectures": ["BertForSequenceClassification"], **_FIXED, "type_vocab_size": 2}
    document |= {theirs: getattr(config, ours) for ours, theirs in _SIZES.items()}
    document["id2label"] = {str(at): f"LABEL_{at}" for at in range(config.classes)}
    (folder / CONFIG).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read_weights(folder: Path, *, classes: int, dropout: float = 0.0, new_head: bool = False) -> TextTransformer:
    """The model of a folder with ``config.json`` and ``model.safetensors``.

    Args:
        classes: the model's last layer has one score for each.
        new_head: keep the layers above the last one's output as they were drawn, when the folder has none that fit.

    Raises:
        PlatformError: ``code="bad_weights"``: not a BERT, or a tensor is missing or of another shape.
    """
    config = _read_config(folder, classes)
    model = TextTransformer(config, dropout)
    try:
        found = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as err:
        raise _bad(folder, f"{WEIGHTS} cannot be read: {err}") from err
    # A model without a classifier on top is saved without the prefix, and an old one with other names of the norms.
    bare = not any(name.startswith("bert.") for name in found)
    tensors = {(f"bert.{name}" if bare else name): value for name, value in found.items()}
    tensors = {_modern(name): value for name, value in tensors.items()}
    state = {}
    for ours, theirs, value in ((ours, theirs, value) for (theirs, value), ours in _pairs(model)):
        given = tensors.get(theirs)
        if given is not None and given.shape == value.shape:
            state[ours] = given.float()
        elif new_head and ours.startswith(("pooled.", "head.")):
            state[ours] = value
        else:
            got = "is missing" if given is None else f"has shape {tuple(given.shape)}"
            raise _bad(folder, f"{theirs} {got}, expected {tuple(value.shape)}")
    if _KINDS in tensors:  # every token is of the first kind here
        state["places.weight"] = state["places.weight"] + tensors[_KINDS][0].float()
    model.load_state_dict(state)
    return model.eval()


def _pairs(model: TextTransformer) -> list[tuple[tuple[str, Tensor], str]]:
    return list(zip(_renamed(model), model.state_dict(), strict=True))


def _renamed(model: TextTransformer) -> list[tuple[str, Tensor]]:
    """The tensors by transformers' names, in the order of the model's own."""
    made = []
    for name, value in model.state_dict().items():
        parts = name.split(".")
        if parts[0] == "layers":
            made.append((f"bert.encoder.layer.{parts[1]}.{_LAYER[parts[2]]}.{parts[3]}", value))
        else:
            made.append((f"{_PARTS[parts[0]]}.{parts[1]}", value))
    return made


def _modern(name: str) -> str:
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _read_config(folder: Path, classes: int) -> TransformerConfig:
    try:
        document: Mapping[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise _bad(folder, f"{CONFIG} cannot be read: {err}") from err
    for key, expected in _FIXED.items():
        if document.get(key, expected) != expected:
            raise _bad(folder, f"{CONFIG} says {key}={document[key]!r}, only {expected!r} is known here")
    if missing := [name for name in _SIZES.values() if name not in document and name != "layer_norm_eps"]:
        raise _bad(folder, f"{CONFIG} has no {missing[0]}")
    sizes = {ours: document[theirs] for ours, theirs in _SIZES.items() if theirs in document}
    return TransformerConfig.model_validate({**sizes, "classes": classes})


def _bad(folder: Path, detail: str) -> PlatformError:
    return PlatformError(
        f"no usable BERT weights in {folder}",
        detail=detail,
        fix=f"give a folder with {CONFIG}, {WEIGHTS} and tokenizer.json of a BERT model",
        code="bad_weights",
    )


class TorchTextEngine(TextEngine):
    """`TextTransformer` by torch. On a GPU in the bundle's precision, on a CPU in fp32; see `contracts.engine.Engine`.

    Args:
        device: ``auto`` takes a GPU when there is one; else a name that torch knows.
        compiled: let torch.compile fuse it, which needs a C compiler and takes a minute of the start.
    """

    def __init__(self, bundle: Bundle, threads: int, device: str, compiled: bool) -> None:
        super().__init__(bundle)
        torch.set_num_threads(threads)
        self.device = _device(device)
        gpu = self.device.type == "cuda"
        self.dtype = torch.bfloat16 if gpu and self._spec.gpu_precision == "bf16" else torch.float32
        if gpu:
            self.working_numbers = 128 * WORKING_NUMBERS  # 2 GB of fp32
        model = read_weights(bundle.model_path, classes=self._width).to(self.device, self.dtype)
        self._model: Any = torch.compile(model, dynamic=True) if compiled else model

    def _run(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        with torch.inference_mode():
            ids = torch.from_numpy(self._pad(rows)).to(self.device, non_blocking=True)
            found: NDArray[np.float64] = self._model(ids).double().cpu().numpy()
        return found


def _device(wanted: str) -> torch.device:
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
