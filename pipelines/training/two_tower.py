"""Two towers: items by what they are and who took them, people by the items that they took; trained with torch.

What is exported are the vectors of items and the layers of the person's tower, so that serving is numpy alone, see
`contracts.tower`. An item that nobody took has the vector of its attributes and its text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts import tower
from pipelines.training.device import import_torch

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from pipelines.training.taken import Taken

_RATE = 3e-3
_AT_ONCE = 20_000  # items whose vectors are exported at once


@dataclass(frozen=True)
class Sequences:
    """What people took, one after another, the oldest first: `items` of person ``owner`` begin at ``start``.

    Attributes:
        items, start: of each interaction its item, and where its person begins.
        timed: whether the order means anything.
    """

    items: NDArray[np.int64]
    start: NDArray[np.int64]
    timed: bool

    @classmethod
    def of(cls, taken: Taken) -> Sequences:
        """In the order in which `taken` has them."""
        order = np.argsort(taken.user_of, kind="stable")
        _, first, sizes = np.unique(taken.user_of[order], return_index=True, return_counts=True)
        return cls(taken.item_of[order], np.repeat(first, sizes), bool(np.ptp(taken.ages)) if len(order) else False)

    def shuffled(self, rng: np.random.Generator) -> Sequences:
        """With the items of each person in another order, where none is known."""
        if self.timed:
            return self
        order = np.lexsort((rng.random(len(self.items)), self.start))
        return Sequences(self.items[order], self.start, False)

    def before(self, at: NDArray[np.int64], most: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The items before some interactions, the latest first, shape (some, most), and which of them there are."""
        places = at[:, None] - 1 - np.arange(most)
        there = places >= self.start[at][:, None]
        return self.items[np.maximum(places, 0)], there


def fit(taken: Taken, chosen: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The arrays of a recommender of method ``tower``.

    The loss is a softmax over the items of the batch and some drawn from all, each score less the logarithm of how
    often its item is expected there (X. Yi et al.: Sampling-bias-corrected neural modeling for large corpus item
    recommendations, 2019; J. Yang et al.: Mixed negative sampling for learning two-tower neural networks in
    recommendations, 2020). Of some items the network sees their attributes and text alone, so that these have to do
    (M. Volkovs, G. Yu, T. Poutanen: DropoutNet, 2017).
    """
    torch = import_torch()
    rng = np.random.default_rng(taken.seed)
    network = _network(taken, chosen)
    sequences = Sequences.of(taken)
    learnable = np.flatnonzero(np.arange(len(sequences.items)) > sequences.start)
    counts = np.bincount(taken.item_of, minlength=taken.matrix.shape[1]).astype(np.float64)
    share = counts / max(counts.sum(), 1.0)
    size, most = int(chosen["batch"]), int(chosen["context"])
    weights = 0.5 ** (np.arange(most) / chosen["recency"]) if chosen["recency"] else np.ones(most)
    sparse = torch.optim.SparseAdam(list(network.tables.parameters()), lr=_RATE)
    dense = torch.optim.Adam(list(network.layers.parameters()), lr=_RATE)
    left = int(min(chosen["epochs"] * len(learnable), chosen["examples"]))
    total = max(1, left)
    while left > 0 and len(learnable):
        order, now = rng.permutation(learnable), sequences.shuffled(rng)
        for first in range(0, len(order), size):
            at = order[first : first + size][: max(0, left)]
            if not len(at):
                break
            left -= len(at)
            context, there = now.before(at, most)
            drawn = rng.integers(0, len(share), int(chosen["negatives"]))
            expected = np.log(len(at) * share + len(drawn) / len(share))
            loss = network.loss(now.items[at], context, there * weights, drawn, expected, rng)
            for each in (sparse, dense):
                for group in each.param_groups:
                    group["lr"] = _RATE * max(0.02, left / total)
                each.zero_grad()
            loss.backward()
            sparse.step()
            dense.step()
    exported: dict[str, NDArray[Any]] = network.exported()
    return exported


def _network(taken: Taken, chosen: Mapping[str, Any]) -> Any:
    torch = import_torch()
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(taken.seed)
    width, hidden, count = int(chosen["dimensions"]), int(chosen["hidden"]), taken.matrix.shape[1]
    words = _Words(taken.content)

    def table(rows: int, scale: float) -> Any:
        made = nn.Embedding(rows, width, sparse=True)
        nn.init.normal_(made.weight, std=scale / np.sqrt(width))
        return made

    class Network(nn.Module):
        """Both towers; `tables` have sparse gradients."""

        def __init__(self) -> None:
            super().__init__()
            has_words = {"words": table(max(1, words.count), 1.0)} if words.count else {}
            self.tables = nn.ModuleDict({"item": table(count, 1.0), "ask": table(count, 0.1), **has_words})
            self.layers = nn.ModuleDict({"first": nn.Linear(width, hidden), "second": nn.Linear(hidden, width)})
            last: Any = self.layers["second"]
            nn.init.zeros_(last.weight)

        def said(self, items: Any) -> Any:
            """By attributes and text: the mean over the words of each item."""
            if not words.count:
                return torch.zeros(len(items), width)
            flat, offsets, share = words.of(items.numpy())
            table: Any = self.tables["words"]
            return functional.embedding_bag(
                flat, table.weight, offsets, mode="sum", per_sample_weights=share, sparse=True
            )

        def items(self, items: Any, known: Any, words_of: Any) -> Any:
            """Vectors of length one; those that are not `known` by their words alone."""
            return functional.normalize(self.tables["item"](items) * known[:, None] + words_of, dim=1)

        def people(self, mean: Any) -> Any:
            return functional.normalize(mean + self.layers["second"](torch.relu(self.layers["first"](mean))), dim=1)

        def loss(self, wanted: Any, context: Any, weights: Any, drawn: Any, expected: Any, rng: Any) -> Any:
            every, place = np.unique(np.concatenate([wanted, drawn, context.ravel()]), return_inverse=True)
            ids = torch.from_numpy(every)
            words_of = self.said(ids)
            asks = self.tables["ask"](ids) + words_of
            rows = torch.from_numpy(place[len(wanted) + len(drawn) :])
            share = torch.from_numpy(
                (weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)).astype(np.float32)
            )
            mean = functional.embedding_bag(rows.reshape(context.shape), asks, mode="sum", per_sample_weights=share)
            there = torch.from_numpy(place[: len(wanted) + len(drawn)])
            dropped = chosen["dropped"] if words.count else 0.0
            known = torch.from_numpy((rng.random(len(there)) >= dropped).astype(np.float32))
            against = self.items(ids[there], known, words_of[there])
            scores = self.people(mean) @ against.T / chosen["temperature"]
            scores = scores - torch.from_numpy(expected.astype(np.float32))[ids[there]]
            same = ids[there][: len(wanted), None] == ids[there][None, :]
            same.fill_diagonal_(False)
            return functional.cross_entropy(scores.masked_fill(same, -1e9), torch.arange(len(wanted)))

        def exported(self) -> dict[str, NDArray[Any]]:
            """As `contracts.tower` reads them."""
            factors, asks = (np.zeros((count, width), np.float32) for _ in range(2))
            taken_at_all = torch.from_numpy((taken.people > 0).astype(np.float32))
            with torch.no_grad():
                for start in range(0, count, _AT_ONCE):
                    ids = torch.arange(start, min(start + _AT_ONCE, count))
                    words_of, known = self.said(ids), taken_at_all[ids]
                    factors[ids.numpy()] = self.items(ids, known, words_of).numpy()
                    asks[ids.numpy()] = (self.tables["ask"](ids) * known[:, None] + words_of).numpy()
                first, second = (getattr(self.layers, name) for name in ("first", "second"))
                layers = (first.weight.T, first.bias, second.weight.T, second.bias)
                named = zip(tower.LAYERS, (one.detach().contiguous().numpy() for one in layers), strict=True)
            return {"factors": factors, tower.ASKS: asks, **dict(named)}

    return Network()


class _Words:
    """The words of items as flat numbers, with the share that each has."""

    def __init__(self, content: csr_matrix | None) -> None:
        self.count = 0 if content is None or not content.nnz else int(content.shape[1])
        self._content = content

    def of(self, items: NDArray[np.int64]) -> tuple[Any, Any, Any]:
        """The words, where each item begins, and the shares."""
        torch = import_torch()
        assert self._content is not None
        part = self._content[items]
        flat = torch.from_numpy(part.indices.astype(np.int64))
        return flat, torch.from_numpy(part.indptr[:-1].astype(np.int64)), torch.from_numpy(part.data.astype(np.float32))
