"""Matrices of low rank over a Llama, as adapters: kept as peft names them, written for llama.cpp or for vLLM.

See Hu et al. 2021: a weight W of shape (out, in) becomes W + alpha / rank * B A, where A has (rank, in), B
(out, rank).
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.adapter import Adapter
from contracts.errors import PlatformError

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAYER = "lora"  # what applies such an adapter, see `contracts.adapter.Adapter.layer`
ALPHA, HEADS = "lora.alpha", "lora.heads"  # beside the matrices: the factor, and heads of queries and of keys
MAX_RANK = 256
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
LAYERS = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
_ROTATED = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
_NAME = re.compile(r"base_model\.model\.([\w.]+)\.lora_([AB])\.weight")
_STRING, _FLOAT, _ALIGNED = 8, 6, 32  # of GGUF


def tensor_name(name: str) -> str:
    """What GGUF calls a weight of transformers' Llama, without ``.weight``.

    Raises:
        KeyError: it is none.
    """
    stem = name.removesuffix(".weight")
    if stem in OUTER:
        return OUTER[stem]
    head, _, rest = stem.removeprefix("model.layers.").partition(".")
    if not stem.startswith("model.layers.") or not head.isdigit():
        raise KeyError(name)
    return f"blk.{head}.{LAYERS[rest]}"


def rotated(name: str, values: NDArray[Any], heads: Mapping[str, int]) -> NDArray[Any]:
    """Rows of a query or a key, from the halves that transformers turns to the pairs that llama.cpp turns."""
    kind = name.rpartition(".")[2]
    if kind not in _ROTATED:
        return values
    count = heads[_ROTATED[kind]]
    found: NDArray[Any] = values.reshape(count, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    return found


def turned_back(name: str, values: NDArray[Any], heads: Mapping[str, int]) -> NDArray[Any]:
    """The inverse of `rotated`."""
    kind = name.rpartition(".")[2]
    if kind not in _ROTATED:
        return values
    count = heads[_ROTATED[kind]]
    found: NDArray[Any] = values.reshape(count, -1, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    return found


def lora_of(folder: Path, heads: tuple[int, int], *, base: str, entity: str, version: int) -> Adapter:
    """The adapter of a folder as peft writes it: ``adapter_config.json`` and ``adapter_model.safetensors``.

    Args:
        heads: of queries, and of keys and values, of the base.
        base: sha256 of the base's ``model.gguf``.

    Raises:
        PlatformError: ``code="bad_adapter"``: it is none, or changes what no engine takes from adapters.
    """
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        told = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "adapter_model.safetensors")
        alpha = float(told["lora_alpha"])
    except (OSError, ValueError, KeyError, SafetensorError) as err:
        raise _bad(f"{type(err).__name__}: {err}") from err
    for name in ("use_rslora", "use_dora"):
        if told.get(name):
            raise _bad(f"it was trained with {name}")
    kept: dict[str, Any] = {name: np.asarray(one, np.float32) for name, one in tensors.items()}
    kept |= {ALPHA: np.array([alpha], np.float32), HEADS: np.array(heads, np.int64)}
    made = Adapter(layer=LAYER, base=base, entity=entity, version=version, tensors=kept)
    if wrong := misfit(made):
        raise _bad(wrong)
    return made


def misfit(adapter: Adapter) -> str:
    """What of an adapter is no pair of matrices over a Llama; "" where all is."""
    if adapter.layer != LAYER:
        return f"it is of layer {adapter.layer}, not {LAYER}"
    tensors = adapter.tensors
    if HEADS not in tensors or ALPHA not in tensors or tensors[HEADS].shape != (2,) or tensors[HEADS].min() < 1:
        return f"it does not tell {ALPHA} and {HEADS}"
    pairs: dict[str, dict[str, NDArray[Any]]] = {}
    for name, one in tensors.items():
        if name in (ALPHA, HEADS):
            continue
        found = _NAME.fullmatch(name)
        if found is None or one.ndim != 2:
            return f"{name[:100]} is no matrix of low rank"
        try:
            tensor_name(found[1])
        except KeyError:
            return f"it changes {found[1][:100]}, and engines take matrices of {', '.join(sorted(LAYERS))}"
        pairs.setdefault(found[1], {})[found[2]] = one
    for stem, both in pairs.items():
        if len(both) != 2 or both["A"].shape[0] != both["B"].shape[1]:
            return f"the matrices of {stem} do not fit each other"
        if both["A"].shape[0] > MAX_RANK:
            return f"its rank is {both['A'].shape[0]}, at most {MAX_RANK}"
        kind, rows = tensor_name(stem).rpartition(".")[2], both["B"].shape[0]
        if kind in _ROTATED and rows % (2 * int(tensors[HEADS][int(kind == "attn_k")])):
            return f"{stem} has {rows} rows, which are no whole heads"
    return "" if pairs else "it has no matrices"


def rank_of(adapter: Adapter) -> int:
    """The largest rank of its matrices."""
    return max(int(one.shape[0]) for name, one in adapter.tensors.items() if ".lora_A." in name)


def to_gguf(adapter: Adapter) -> bytes:
    """The file that llama.cpp takes it from."""
    import numpy as np

    queries, keys = (int(one) for one in adapter.tensors[HEADS])
    heads = {"num_attention_heads": queries, "num_key_value_heads": keys}
    facts: dict[str, str | float] = {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": float(adapter.tensors[ALPHA][0]),
        "fairlead.base": adapter.base,
    }
    infos, data = [], b""
    matrices = [(found, one) for name, one in sorted(adapter.tensors.items()) if (found := _NAME.fullmatch(name))]
    for found, one in matrices:
        ours = tensor_name(found[1])
        values = np.ascontiguousarray(rotated(ours, one, heads) if found[2] == "B" else one, dtype="<f4")
        shape = values.shape[::-1]
        place = struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(data))
        infos.append(_text(f"{ours}.weight.lora_{found[2].lower()}") + place)
        data += values.tobytes() + bytes(-values.nbytes % _ALIGNED)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(facts))
    head += b"".join(_text(name) + _value(value) for name, value in facts.items()) + b"".join(infos)
    return head + bytes(-len(head) % _ALIGNED) + data


def write_peft(adapter: Adapter, folder: Path) -> None:
    """Write it as peft does, which is how vLLM reads it."""
    import numpy as np
    from safetensors.numpy import save_file

    matrices = {name: np.ascontiguousarray(one) for name, one in adapter.tensors.items() if _NAME.fullmatch(name)}
    stems: Sequence[str] = sorted({found[1] for name in matrices if (found := _NAME.fullmatch(name))})
    told = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "bias": "none",
        "base_model_name_or_path": "",
        "r": rank_of(adapter),
        "lora_alpha": float(adapter.tensors[ALPHA][0]),
        "lora_dropout": 0.0,
        "target_modules": sorted({stem.rpartition(".")[2] for stem in stems}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(matrices, folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: str | float) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    return struct.pack("<If", _FLOAT, value)


def _bad(detail: str) -> PlatformError:
    fix = "train it with --recipe lora and the usual lora.targets"
    return PlatformError("the adapter cannot be served", detail=detail, fix=fix, code="bad_adapter")
