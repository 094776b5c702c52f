"""A Llama in plain torch, for small language models that are trained from scratch; weights have transformers' names.

Rotary positions, RMS norms and gated units as in H. Touvron et al. 2023: `config_of` and the state dict are what
transformers reads, and what llama.cpp runs. Dropout is added, which matters for small texts.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pipelines.training.language_model import LlamaShape

_EPSILON, _THETA, _SPREAD = 1e-5, 10_000.0, 0.02


class Llama(nn.Module):
    """Tokens to the logits of the next ones.

    Args:
        shape: see `LlamaShape`.  vocabulary: tokens.  window: tokens that are seen at most.
        dropout: of what enters the layers, and of what each adds.
        spare: compute the activations of a layer twice, and keep few of them (gradient checkpointing).
    """

    def __init__(self, shape: LlamaShape, vocabulary: int, window: int, dropout: float, spare: bool = False) -> None:
        super().__init__()
        self.model = _Layers(shape, vocabulary, window, dropout, spare)
        self.lm_head = nn.Linear(shape.width, vocabulary, bias=False)
        self._begin(shape.layers)
        if shape.tied:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Logits, shape (rows, tokens, vocabulary), of tokens, shape (rows, tokens)."""
        return self.lm_head(self.model(ids))  # type: ignore[no-any-return]

    def _begin(self, layers: int) -> None:
        """As GPT-2 begins: what is added to the stream starts smaller, the more layers add to it."""
        for name, values in self.named_parameters():
            if values.ndim > 1:
                last = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(values, std=_SPREAD / math.sqrt(2 * layers) if last else _SPREAD)


class _Layers(nn.Module):
    def __init__(self, shape: LlamaShape, vocabulary: int, window: int, dropout: float, spare: bool) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, shape.width)
        self.layers = nn.ModuleList(_Layer(shape, dropout) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=_EPSILON)
        self._drop, self._spare = nn.Dropout(dropout), spare
        half = shape.width // shape.heads // 2
        angles = torch.outer(torch.arange(window).float(), _THETA ** (-torch.arange(half).float() / half))
        turns = torch.cat([angles, angles], dim=-1)
        self.register_buffer("cosines", turns.cos(), persistent=False)
        self.register_buffer("sines", turns.sin(), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        turns: Any = (self.cosines[:length], self.sines[:length])  # type: ignore[index]
        stream = self._drop(self.embed_tokens(ids))
        for layer in self.layers:
            if self._spare and self.training:
                stream = checkpoint(layer, stream, *turns, use_reentrant=False)
            else:
                stream = layer(stream, *turns)
        return self.norm(stream)  # type: ignore[no-any-return]


class _Layer(nn.Module):
    def __init__(self, shape: LlamaShape, dropout: float) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.width, eps=_EPSILON)
        self.self_attn = _Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.width, eps=_EPSILON)
        self.mlp = _Gated(shape)
        self._drop = nn.Dropout(dropout)

    def forward(self, stream: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        stream = stream + self._drop(self.self_attn(self.input_layernorm(stream), cosines, sines))
        return stream + self._drop(self.mlp(self.post_attention_layernorm(stream)))  # type: ignore[no-any-return]


class _Attention(nn.Module):
    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self._heads, self._key_heads = shape.heads, shape.key_heads or shape.heads
        size = shape.width // shape.heads
        self.q_proj = nn.Linear(shape.width, self._heads * size, bias=False)
        self.k_proj = nn.Linear(shape.width, self._key_heads * size, bias=False)
        self.v_proj = nn.Linear(shape.width, self._key_heads * size, bias=False)
        self.o_proj = nn.Linear(self._heads * size, shape.width, bias=False)

    def forward(self, stream: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        rows, length, _ = stream.shape

        def heads(values: Tensor, count: int) -> Tensor:
            return values.view(rows, length, count, -1).transpose(1, 2)

        query = _turned(heads(self.q_proj(stream), self._heads), cosines, sines)
        key = _turned(heads(self.k_proj(stream), self._key_heads), cosines, sines)
        value = heads(self.v_proj(stream), self._key_heads)
        if self._key_heads != self._heads:
            each = self._heads // self._key_heads
            key, value = key.repeat_interleave(each, dim=1), value.repeat_interleave(each, dim=1)
        found = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.o_proj(found.transpose(1, 2).reshape(rows, length, -1))  # type: ignore[no-any-return]


class _Gated(nn.Module):
    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.hidden_size, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.hidden_size, bias=False)
        self.down_proj = nn.Linear(shape.hidden_size, shape.width, bias=False)

    def forward(self, stream: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(stream)) * self.up_proj(stream))  # type: ignore[no-any-return]


def _turned(values: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotary positions, the halves of a head together, as transformers has them."""
    first, second = values.chunk(2, dim=-1)
    return values * cosines + torch.cat([-second, first], dim=-1) * sines


def config_of(shape: LlamaShape, vocabulary: int, window: int, end: int) -> dict[str, Any]:
    """``config.json`` of transformers; `end` is the token that begins, ends and fills up."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.width,
        "intermediate_size": shape.hidden_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_heads or shape.heads,
        "head_dim": shape.width // shape.heads,
        "max_position_embeddings": window,
        "rms_norm_eps": _EPSILON,
        "rope_parameters": {"rope_type": "default", "rope_theta": _THETA},
        "vocab_size": vocabulary,
        "tie_word_embeddings": shape.tied,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "dtype": "float32",
    }
