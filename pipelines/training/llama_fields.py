"""What a GGUF file says of a model whose weights come from a folder of transformers: its shape and its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.training.llama_gguf import ARCHITECTURE, import_gguf, refused

_NORMAL, _CONTROL, _USER = 1, 3, 4
# How texts are cut before pairs are merged, by what is told apart in tokenizer.json.
_CUTS = (
    ("Digits", "smollm"),
    ("\\p{N}{1,3}", "llama-bpe"),
    ("\\p{N}", "qwen2"),
    ("", "gpt-2"),
)


def fields_of(folder: Path, config: Mapping[str, Any]) -> dict[str, tuple[Any, Any, Any]]:
    """Value, kind and kind of members by name, for `pipelines.training.llama_gguf.write_gguf`.

    Raises:
        PlatformError: ``code="bad_weights"``: the tokenizer is of a kind that is not written, or positions are scaled.
    """
    kinds = import_gguf().GGUFValueType
    made: dict[str, tuple[Any, Any, Any]] = {}

    def add(name: str, value: Any, kind: Any, inner: Any = None) -> None:
        if value is not None:
            made[name] = (value, kind, inner)

    rope = config.get("rope_parameters") or {}
    if (config.get("rope_scaling") or rope).get("rope_type", "default") != "default":
        raise refused(folder, "its rotary positions are scaled, which is not written yet")
    heads = config["num_attention_heads"]
    numbers = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": heads,
        "attention.head_count_kv": config.get("num_key_value_heads") or heads,
        "rope.dimension_count": config.get("head_dim") or config["hidden_size"] // heads,
        "attention.key_length": config.get("head_dim") or config["hidden_size"] // heads,
        "attention.value_length": config.get("head_dim") or config["hidden_size"] // heads,
        "vocab_size": config["vocab_size"],
    }
    add("general.name", folder.name, kinds.STRING)
    for name, value in numbers.items():
        add(f"{ARCHITECTURE}.{name}", value, kinds.UINT32)
    theta = rope.get("rope_theta") or config.get("rope_theta") or 10_000.0
    add(f"{ARCHITECTURE}.rope.freq_base", float(theta), kinds.FLOAT32)
    add(f"{ARCHITECTURE}.attention.layer_norm_rms_epsilon", float(config["rms_norm_eps"]), kinds.FLOAT32)
    for name, (value, kind, inner) in _tokenizer(folder, config["vocab_size"], kinds).items():
        add(f"tokenizer.{name}", value, kind, inner)
    return made


def _tokenizer(folder: Path, size: int, kinds: Any) -> dict[str, tuple[Any, Any, Any]]:
    document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    model = document["model"]
    before = json.dumps(document.get("pre_tokenizer") or {})
    if model["type"] != "BPE" or "ByteLevel" not in before:
        raise refused(folder, f"its tokenizer is {model['type']} and not byte pairs of bytes; give its GGUF instead")
    tokens, types = [f"[PAD{at}]" for at in range(size)], [_USER] * size
    for token, at in model["vocab"].items():
        tokens[at], types[at] = token, _NORMAL
    for added in document.get("added_tokens", ()):
        tokens[added["id"]] = added["content"]
        types[added["id"]] = _CONTROL if added["special"] else _USER
    merges = [one if isinstance(one, str) else " ".join(one) for one in model["merges"]]
    from transformers import AutoTokenizer

    read = AutoTokenizer.from_pretrained(str(folder))
    cut = next(name for sign, name in _CUTS if sign in before)
    text, number = kinds.STRING, kinds.UINT32
    return {
        "ggml.model": ("gpt2", text, None),
        "ggml.pre": (cut, text, None),
        "ggml.tokens": (tokens, kinds.ARRAY, text),
        "ggml.token_type": (types, kinds.ARRAY, kinds.INT32),
        "ggml.merges": (merges, kinds.ARRAY, text),
        "ggml.bos_token_id": (read.bos_token_id, number, None),
        "ggml.eos_token_id": (read.eos_token_id, number, None),
        "ggml.padding_token_id": (read.pad_token_id, number, None),
        "ggml.add_bos_token": (False, kinds.BOOL, None),
        "ggml.add_space_prefix": (False, kinds.BOOL, None),
        "chat_template": (read.chat_template, text, None),
    }
