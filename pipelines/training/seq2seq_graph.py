"""An encoder-decoder as two ONNX graphs that write one token after another, see `contracts.engines.seq2seq`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contracts.engines.seq2seq import DECODER, ENCODER
from contracts.errors import PlatformError
from pipelines.training.onnx_export import graph
from pipelines.training.seq2seq import RELATIVE, Network

_LARGEST_DIFFERENCE = 1e-3  # of log-likelihoods, between these graphs and the library


def past_of(config: Any) -> tuple[int, int, int]:
    """Layers, heads and the size of a head of the decoder's past."""
    if config.model_type in RELATIVE:
        return int(config.num_decoder_layers), int(config.num_heads), int(config.d_kv)
    heads = int(config.decoder_attention_heads)
    return int(config.decoder_layers), heads, int(config.d_model) // heads


def write_graphs(network: Network, start: Sequence[int], out: Path) -> None:
    """Write encoder.onnx and decoder.onnx, after they have said what the library says.

    Raises:
        PlatformError: ``code="bad_weights"``: they say something else, as the model is built in another way.
    """
    network = network.cpu().eval()
    encoder: nn.Module
    decoder: nn.Module
    try:
        if network.model.config.model_type in RELATIVE:
            encoder, decoder = _RelativeEncoder(network), _RelativeDecoder(network)
        else:
            encoder, decoder = _Encoder(network), _Decoder(network)
        layers, heads, size = past_of(network.model.config)
    except AttributeError as err:
        raise _unfit(f"{err}") from err
    _check(network, encoder, decoder, start)
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
    past = torch.zeros(layers, 2, 2, heads, 3, size)
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
                _heads(part.q_proj(hidden), heads), _heads(part.k_proj(hidden), heads),
                _heads(part.v_proj(hidden), heads), mask,
            )  # fmt: skip
            hidden = layer.self_attn_layer_norm(hidden + part.out_proj(found))
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
            found = _attention(_heads(part.q_proj(hidden), part.num_heads), key, value, None)
            hidden = layer.self_attn_layer_norm(hidden + part.out_proj(found))
            part = layer.encoder_attn
            found = _attention(_heads(part.q_proj(hidden), part.num_heads), cross[at, 0], cross[at, 1], mask)
            hidden = layer.encoder_attn_layer_norm(hidden + part.out_proj(found))
            hidden = _feed_forward(layer, hidden)
        scores = network.model.lm_head(hidden)[:, 0] + network.model.final_logits_bias
        if keys is None:
            return scores.log_softmax(dim=-1), torch.stack(present)
        weight, kept = network.copied(hidden, keys, source, token)
        share = torch.sigmoid(kept)
        chances = scores.softmax(dim=-1) * share
        mixed = chances.scatter_add(1, source, weight[:, 0] * (1 - share))
        return (mixed + 1e-12).log(), torch.stack(present)


class _RelativeEncoder(nn.Module):
    """`_Encoder` of a T5 (C. Raffel et al., 2020): distances are a bias of the scores, layers are normalised before."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.distances = _distances(network.model.encoder, both_ways=True)

    def forward(self, source: Tensor) -> tuple[Tensor]:
        encoder, decoder = self.network.model.encoder, self.network.model.decoder
        hidden = encoder.embed_tokens(source)
        mask = (source != self.network.pad_id)[:, None, None, :]
        places = torch.arange(source.shape[1], device=source.device)
        bias = _by_distance(self.distances, places[None, :] - places[:, None])
        for block in encoder.block:
            part, given = block.layer[0].SelfAttention, block.layer[0].layer_norm(hidden)
            found = _attention(
                _heads(part.q(given), part.n_heads), _heads(part.k(given), part.n_heads),
                _heads(part.v(given), part.n_heads), mask, bias, scaled=False,
            )  # fmt: skip
            hidden = hidden + part.o(found)
            hidden = block.layer[-1](hidden)
        hidden = encoder.final_layer_norm(hidden)
        cross = []
        for block in decoder.block:
            part = block.layer[1].EncDecAttention
            cross.append(torch.stack([_heads(one(hidden), part.n_heads) for one in (part.k, part.v)]))
        return (torch.stack(cross),)


class _RelativeDecoder(nn.Module):
    """`_Decoder` of a T5."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.distances = _distances(network.model.decoder, both_ways=False)

    def forward(self, token: Tensor, past: Tensor, source: Tensor, cross: Tensor) -> tuple[Tensor, Tensor]:
        model = self.network.model
        hidden = model.decoder.embed_tokens(token)
        mask = (source != self.network.pad_id)[:, None, None, :]
        written = torch.arange(past.shape[4] + 1, device=token.device)
        bias = _by_distance(self.distances, written[None, :] - past.shape[4])
        present = []
        for at, block in enumerate(model.decoder.block):
            own, other, inner = block.layer
            part, given = own.SelfAttention, own.layer_norm(hidden)
            key = torch.cat([past[at, 0], _heads(part.k(given), part.n_heads)], dim=2)
            value = torch.cat([past[at, 1], _heads(part.v(given), part.n_heads)], dim=2)
            present.append(torch.stack([key, value]))
            found = _attention(_heads(part.q(given), part.n_heads), key, value, None, bias, scaled=False)
            hidden = hidden + part.o(found)
            part, given = other.EncDecAttention, other.layer_norm(hidden)
            asked = _heads(part.q(given), part.n_heads)
            hidden = hidden + part.o(_attention(asked, cross[at, 0], cross[at, 1], mask, scaled=False))
            hidden = inner(hidden)
        hidden = model.decoder.final_layer_norm(hidden)
        if getattr(model.config, "scale_decoder_outputs", False):
            hidden = hidden * model.config.d_model**-0.5
        return model.lm_head(hidden)[:, 0].log_softmax(dim=-1), torch.stack(present)


def _distances(stack: Any, both_ways: bool) -> Tensor:
    """The bias of each distance from the asking token, ``-most`` to ``most``, beyond which all are alike.

    A table, so that no logarithm of another library puts a distance on the other side of a border. Shape
    (2 x most + 1, heads).
    """
    part = stack.block[0].layer[0].SelfAttention
    most, buckets = int(part.relative_attention_max_distance), int(part.relative_attention_num_buckets)
    distance = torch.arange(-most, most + 1)
    first = torch.zeros_like(distance)
    if both_ways:
        buckets //= 2
        first, far = (distance > 0).long() * buckets, distance.abs()
    else:
        far = (-distance).clamp(min=0)
    exact = buckets // 2  # nearer ones have a bucket each, the others share them by their logarithm
    more = torch.log(far.clamp(min=1).float() / exact) / math.log(most / exact) * (buckets - exact)
    shared = (exact + more.long()).clamp(max=buckets - 1)
    bucket = first + torch.where(far < exact, far, shared)
    found: Tensor = part.relative_attention_bias.weight.detach()[bucket]
    return found.clone()


def _by_distance(table: Tensor, distance: Tensor) -> Tensor:
    """Shape (1, heads, asking, asked), of distances (asking, asked)."""
    most = table.shape[0] // 2
    return nn.functional.embedding(distance.clamp(-most, most) + most, table).permute(2, 0, 1)[None]


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


def _attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, bias: Tensor | None = None, scaled: bool = True
) -> Tensor:
    """What is found at `key`, of all heads side by side: (rows, tokens, heads x size)."""
    scores = query @ key.transpose(2, 3)
    if scaled:
        scores = scores * query.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = scores.masked_fill(~mask, -1e9)
    return (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)


def _feed_forward(layer: Any, hidden: Tensor) -> Tensor:
    found: Tensor = layer.final_layer_norm(hidden + layer.fc2(layer.activation_fn(layer.fc1(hidden))))
    return found


def _check(network: Network, encoder: nn.Module, decoder: nn.Module, start: Sequence[int]) -> None:
    """That the graphs' log-likelihoods of some tokens, one after another, are those of the library."""
    config = network.model.config
    drawn = torch.Generator().manual_seed(0)
    # Relative places are told apart up to a distance, so some texts have to be longer than it.
    read, said = (150, 24) if config.model_type in RELATIVE else (9, 5)
    source = torch.randint(4, config.vocab_size, (2, read), generator=drawn)
    source[1, 6:] = network.pad_id
    wanted = torch.randint(4, config.vocab_size, (2, said), generator=drawn)
    given = torch.cat([torch.full((2, 1), start[0]), wanted[:, :-1]], dim=1)
    try:
        with torch.no_grad():
            expected = network(source, given, wanted)[0]
            seen = encoder(source)
            layers, heads, size = past_of(config)
            past = torch.zeros(layers, 2, 2, heads, 0, size)
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
        fix="take other weights: of a T5, or of a BART or Marian whose layers are normalised after they are added",
        code="bad_weights",
    )
