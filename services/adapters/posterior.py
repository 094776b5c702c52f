"""A Bayesian last layer that learns online: weights with a Gaussian posterior whose covariance is diagonal.

O. Chapelle, L. Li: An empirical evaluation of Thompson sampling, 2011, algorithm 3: new examples move the mean to the
mode of what they and the posterior so far say, and their curvature there adds to the precision. Two classes are the
softmax of (0, w x).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.adapter import Adapter

Floats = NDArray[np.float64]
_ROUNDS, _NEAR = 25, 1e-7


@dataclass(frozen=True)
class Posterior:
    """Attributes: mean, precision: of each weight, shape (weights,)."""

    mean: Floats
    precision: Floats

    def faded(self, prior: Posterior, kept: float) -> Posterior:
        """The same mean, with so much of the certainty beyond the prior's: what was long ago counts less."""
        return Posterior(self.mean, prior.precision + kept * (self.precision - prior.precision))

    def learned(self, designs: Floats, labels: NDArray[np.int64]) -> Posterior:
        """The posterior after examples, each once.

        Args:
            designs: shape (examples, classes, weights): the logits of an example are its design times the weights.
            labels: the true class of each, shape (examples,).
        """
        if not len(labels):
            return self
        weights = self.mean
        best = self._loss(weights, designs, labels)
        for _ in range(_ROUNDS):
            slope, curved = self._derivatives(weights, designs, labels)
            step = np.linalg.solve(curved, slope)
            size = 1.0
            while (loss := self._loss(weights - size * step, designs, labels)) > best and size > 1e-3:
                size /= 2
            if loss > best:
                break
            weights, best = weights - size * step, loss
            if np.abs(size * step).max() < _NEAR:
                break
        chances = _softmax(designs @ weights)
        centred = designs - np.einsum("nc,ncw->nw", chances, designs)[:, None]
        curvature = np.einsum("nc,ncw->w", chances, centred**2)
        return Posterior(weights, self.precision + curvature)

    def _loss(self, weights: Floats, designs: Floats, labels: NDArray[np.int64]) -> float:
        logits = designs @ weights
        high = logits.max(axis=1)
        total = high + np.log(np.exp(logits - high[:, None]).sum(axis=1))
        missed = total - logits[np.arange(len(labels)), labels]
        return float(missed.sum() + 0.5 * self.precision @ (weights - self.mean) ** 2)

    def _derivatives(self, weights: Floats, designs: Floats, labels: NDArray[np.int64]) -> tuple[Floats, Floats]:
        chances = _softmax(designs @ weights)
        off = chances.copy()
        off[np.arange(len(labels)), labels] -= 1
        slope = np.einsum("nc,ncw->w", off, designs) + self.precision * (weights - self.mean)
        centred = designs - np.einsum("nc,ncw->nw", chances, designs)[:, None]
        flat = (np.sqrt(chances)[:, :, None] * centred).reshape(-1, designs.shape[2])
        return slope, flat.T @ flat + np.diag(self.precision)


def _softmax(logits: Floats) -> Floats:
    found: Any = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def wrong_shapes(adapter: Adapter, layer: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """What of an adapter is not as this layer writes it."""
    if adapter.layer != layer:
        return f"it is of layer {adapter.layer}, not {layer}"
    for name, wanted in {**shapes, "precision": shapes["mean"]}.items():
        found = adapter.tensors.get(name)
        if found is None or found.shape != wanted or found.dtype.kind != "f":
            return f"{name} is {'not there' if found is None else (found.dtype.name, found.shape)}, not {wanted}"
    return ""


def posterior_of(adapter: Adapter | None, prior: Posterior) -> Posterior:
    """What an adapter knows; the prior where there is none."""
    if adapter is None:
        return prior
    mean, precision = (np.asarray(adapter.tensors[name], dtype=np.float64) for name in ("mean", "precision"))
    return Posterior(mean, np.maximum(precision, prior.precision))


def as_tensors(posterior: Posterior) -> dict[str, NDArray[np.float32]]:
    """How it is kept."""
    return {"mean": posterior.mean.astype(np.float32), "precision": posterior.precision.astype(np.float32)}
