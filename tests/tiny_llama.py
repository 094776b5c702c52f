"""A Llama of 0.7 MB that is written here: each token is followed by a certain other one, so its answers are known.

Letters are followed by the next one and ``z`` by the end: ``w`` is continued by ``xyz``. Capital letters go round for
ever, ``A`` to ``Z`` and again. ``0`` is followed by the four bytes of an emoji, each a token, and then by the end; a
quotation mark by another one. ``?`` and ``>`` are followed by the mark of a tool call, so that calls do not end by
themselves. In a conversation the answer continues the last sign of the last message.
"""

from __future__ import annotations

import string
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEAD = 384, 32  # of the embedding; of the only attention head, which does nothing
_NORMAL, _UNKNOWN, _CONTROL, _OWN, _BYTE = 1, 2, 3, 4, 6
CALL = "<tool_call>"
EMOJI = "😀"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{{ messages[-1].content[-1:] }}{% endif %}"
)
_SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
_BYTES = [f"<0x{value:02X}>" for value in range(256)]
_SIGNS = ["\u2581", *(sign for sign in string.printable if sign.isprintable() and sign != " ")]
VOCABULARY = [*_SPECIAL, *_BYTES, *_SIGNS, CALL]
END = 4


def write_tiny_llama(file: Path, template: str = TEMPLATE, architecture: str = "llama") -> Path:
    """Write the model as GGUF."""
    kinds = [_UNKNOWN, *[_CONTROL] * 4, *[_BYTE] * len(_BYTES), *[_NORMAL] * len(_SIGNS), _OWN]
    facts: dict[str, Any] = {
        "general.architecture": architecture,
        "general.name": "tiny",
        f"{architecture}.context_length": 1 << 20,
        f"{architecture}.embedding_length": WIDTH,
        f"{architecture}.block_count": 1,
        f"{architecture}.feed_forward_length": HEAD,
        f"{architecture}.attention.head_count": 1,
        f"{architecture}.attention.head_count_kv": 1,
        f"{architecture}.attention.key_length": HEAD,
        f"{architecture}.attention.value_length": HEAD,
        f"{architecture}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{architecture}.rope.dimension_count": HEAD,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": VOCABULARY,
        "tokenizer.ggml.scores": [0.0] * len(VOCABULARY),
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": END,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.chat_template": template,
    }
    head = b"".join(_text(name) + _value(value) for name, value in facts.items())
    infos, data = b"", b""
    tensors = _tensors()
    for name, values in tensors.items():
        kind = 0 if values.ndim == 1 else 1
        raw = values.astype(np.float32 if kind == 0 else np.float16).tobytes()
        shape = values.shape[::-1]
        infos += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(data))
        data += raw + bytes(-len(raw) % 32)
    start = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts)) + head + infos
    file.write_bytes(start + bytes(-len(start) % 32) + data)
    return file


def _tensors() -> dict[str, Any]:
    size = len(VOCABULARY)
    embedding = np.zeros((size, WIDTH))
    embedding[np.arange(size), np.arange(size)] = 1
    output = np.zeros((size, WIDTH))
    for before, after in _successors().items():
        output[after, before] = 1
    nothing = {
        "attn_q": (HEAD, WIDTH), "attn_k": (HEAD, WIDTH), "attn_v": (HEAD, WIDTH), "attn_output": (WIDTH, HEAD),
        "ffn_gate": (HEAD, WIDTH), "ffn_up": (HEAD, WIDTH), "ffn_down": (WIDTH, HEAD),
    }  # fmt: skip
    return {
        "token_embd.weight": embedding,
        "output_norm.weight": np.ones(WIDTH),
        "output.weight": output,
        "blk.0.attn_norm.weight": np.ones(WIDTH),
        "blk.0.ffn_norm.weight": np.ones(WIDTH),
        **{f"blk.0.{name}.weight": np.zeros(shape) for name, shape in nothing.items()},
    }


def _successors() -> dict[int, int]:
    """Which token follows each; the end, where nothing else is said."""
    number = {token: at for at, token in enumerate(VOCABULARY)}
    after = dict.fromkeys(range(len(VOCABULARY)), END)
    small, large = string.ascii_lowercase, string.ascii_uppercase
    after |= {number[a]: number[b] for a, b in pairwise(small)}
    after |= {number[a]: number[b] for a, b in zip(large, large[1:] + large[0], strict=True)}
    emoji = ["0", *(f"<0x{value:02X}>" for value in EMOJI.encode())]
    after |= {number[a]: number[b] for a, b in pairwise(emoji)}
    after[number['"']] = number['"']
    after |= {number[sign]: number[CALL] for sign in "?>"}
    return after


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    if isinstance(value, list):
        kind, parts = _typed(value[0])[0], b"".join(_typed(one)[1] for one in value)
        return struct.pack("<IIQ", 9, kind, len(value)) + parts
    kind, raw = _typed(value)
    return struct.pack("<I", 4 if kind == 5 else kind) + raw  # single numbers are unsigned


def _typed(value: Any) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return 5, struct.pack("<i", value)
    return (6, struct.pack("<f", value)) if isinstance(value, float) else (8, _text(value))
