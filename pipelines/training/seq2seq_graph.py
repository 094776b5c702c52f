"""An encoder-decoder as two ONNX graphs that write one token after another, see `contracts.engines.seq2seq`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contracts.engines.seq2seq import DECODER, ENCODER
from contracts.errors import PlatformError
from pipelines.training.onnx_export import graph
from pipelines.training.seq2seq import Network

_LARGEST_DIFFERENCE = 1e-3  # of log-likelihoods, between these graphs and the library


def write_graphs(network: Network, start: Sequence[int], out: Path) -> None:
    """Write encoder.onnx and decoder.onnx, after they have said what the library says.

    Raises:
        PlatformError: ``code="bad_weights"``: they say something else, as the model is built in another way.
    """
    network = network.cpu().eval()
    encoder, decoder = _Encoder(network), _Decoder(network)
    _check(network, encoder, decoder, start)
    config = network.model.config
    layers, heads = config.decoder_layers, config.decoder_attention_heads
    source = torch.full((2, 7), 5)
    source[1, 5:] = network.pad_id
    with torch.no_grad():
        seen = encoder(source)
    names = ["cross", "keys"][: len(seen)]
    axes: dict[str, dict[int, str]] = {
        "source": {0: "sources", 1: "tokens"},
        "cross": {2: "sources", 4: "tokens"},
        "keys": {0: "sources", 1: "tokens"},
        "token": {0: "sources"},
        "past": {2: "sources", 4: "written"},
        "scores": {0: "sources"},
        "present": {2: "sources", 4: "longer"},
    }
    past = torch.zeros(layers, 2, 2, heads, 3, config.d_model // heads)
    token = torch.full((2, 1), 6)
    (out / ENCODER).write_bytes(graph(encoder, (source,), ["source"], names, axes))
    given = ["token", "past", "source", *names]
    (out / DECODER).write_bytes(graph(decoder, (token, past, source, *seen), given, ["scores", "present"], axes))


class _Encoder(nn.Module):
    """Source to the keys and values of each layer of the decoder, and the keys of what is copied."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, source: Tensor) -> tuple[Tensor, ...]:
        model = self.network.model.model
        hidden = _embedded(model.encoder, source, 0)
        mask = (source != self.network.pad_id)[:, None, None, :]
        for layer in model.encoder.layers:
            part = layer.self_attn
            heads = part.num_heads
            found = _attention(
                part, _heads(part.q_proj(hidden), heads), _heads(part.k_proj(hidden), heads),
                _heads(part.v_proj(hidden), heads), mask,
            )  # fmt: skip
            hidden = layer.self_attn_layer_norm(hidden + found)
            hidden = _feed_forward(layer, hidden)
        cross = torch.stack(
            [
                torch.stack(
                    [_heads(one(hidden), layer.encoder_attn.num_heads)
                     for one in (layer.encoder_attn.k_proj, layer.encoder_attn.v_proj)]
                )
                for layer in model.decoder.layers
            ]
        )  # fmt: skip
        return (cross, self.network.key(hidden)) if self.network.copies else (cross,)


class _Decoder(nn.Module):
    """One token more: log-likelihoods of the next one, and the longer past."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, token: Tensor, past: Tensor, source: Tensor, cross: Tensor, keys: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        network = self.network
        decoder = network.model.model.decoder
        hidden = _embedded(decoder, token, past.shape[4])
        mask = (source != network.pad_id)[:, None, None, :]
        present = []
        for at, layer in enumerate(decoder.layers):
            part = layer.self_attn
            key = torch.cat([past[at, 0], _heads(part.k_proj(hidden), part.num_heads)], dim=2)
            value = torch.cat([past[at, 1], _heads(part.v_proj(hidden), part.num_heads)], dim=2)
            present.append(torch.stack([key, value]))
            found = _attention(part, _heads(part.q_proj(hidden), part.num_heads), key, value, None)
            hidden = layer.self_attn_layer_norm(hidden + found)
            part = layer.encoder_attn
            found = _attention(part, _heads(part.q_proj(hidden), part.num_heads), cross[at, 0], cross[at, 1], mask)
            hidden = layer.encoder_attn_layer_norm(hidden + found)
            hidden = _feed_forward(layer, hidden)
        scores = network.model.lm_head(hidden)[:, 0] + network.model.final_logits_bias
        if keys is None:
            return scores.log_softmax(dim=-1), torch.stack(present)
        weight, kept = network.copied(hidden, keys, source, token)
        share = torch.sigmoid(kept)
        chances = scores.softmax(dim=-1) * share
        mixed = chances.scatter_add(1, source, weight[:, 0] * (1 - share))
        return (mixed + 1e-12).log(), torch.stack(present)


def _embedded(part: Any, ids: Tensor, at: Any) -> Tensor:
    """Of tokens that stand from place `at` on, with their places."""
    found: Tensor = part.embed_tokens(ids)
    if not hasattr(part.embed_tokens, "embed_scale"):  # where it is, the table itself has scaled
        found = found * part.embed_scale
    places = torch.arange(ids.shape[1], device=ids.device) + at + getattr(part.embed_positions, "offset", 0)
    found = found + nn.functional.embedding(places, part.embed_positions.weight)[None]
    if hasattr(part, "layernorm_embedding"):
        found = part.layernorm_embedding(found)
    return found


def _heads(values: Tensor, heads: int) -> Tensor:
    """(rows, tokens, width) to (rows, heads, tokens, size)."""
    rows, tokens, width = values.shape
    return values.reshape(rows, tokens, heads, width // heads).transpose(1, 2)


def _attention(part: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -1e9)
    found: Tensor = part.out_proj((scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))
    return found


def _feed_forward(layer: Any, hidden: Tensor) -> Tensor:
    found: Tensor = layer.final_layer_norm(hidden + layer.fc2(layer.activation_fn(layer.fc1(hidden))))
    return found


def _check(network: Network, encoder: nn.Module, decoder: nn.Module, start: Sequence[int]) -> None:
    """That the graphs' log-likelihoods of some tokens, one after another, are those of the library."""
    config = network.model.config
    drawn = torch.Generator().manual_seed(0)
    source = torch.randint(4, config.vocab_size, (2, 9), generator=drawn)
    source[1, 6:] = network.pad_id
    wanted = torch.randint(4, config.vocab_size, (2, 5), generator=drawn)
    given = torch.cat([torch.full((2, 1), start[0]), wanted[:, :-1]], dim=1)
    try:
        with torch.no_grad():
            expected = network(source, given, wanted)[0]
            seen = encoder(source)
            heads = config.decoder_attention_heads
            past = torch.zeros(config.decoder_layers, 2, 2, heads, 0, config.d_model // heads)
            found = []
            for at in range(wanted.shape[1]):
                scores, past = decoder(given[:, at : at + 1], past, source, *seen)
                found.append(scores.gather(1, wanted[:, at : at + 1])[:, 0])
            apart = float((torch.stack(found, dim=1) - expected).abs().max())
    except (AttributeError, RuntimeError) as err:
        raise _unfit(f"{err}") from err
    if not apart <= _LARGEST_DIFFERENCE:
        raise _unfit(f"its log-likelihoods would be {apart:.2g} away from the library's")


def _unfit(detail: str) -> PlatformError:
    return PlatformError(
        "the model cannot be served as a graph",
        detail=detail,
        fix="take other weights, of a BART or Marian whose layers are normalised after they are added",
        code="bad_weights",
    )
