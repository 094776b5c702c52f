"""Vector scaling of a customer's logits: each class has a factor and an offset, learned from the customer's labels.

C. Guo, G. Pleiss, Y. Sun, K. Weinberger: On calibration of modern neural networks, 2017. It corrects what differs
between customers without another model: how common classes are, and how sure the base may be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from contracts.adapter import Adapter
from contracts.engine import Engine
from services.adapters.layer import Applied, Example, Layer
from services.adapters.posterior import Floats, Posterior, as_tensors, posterior_of, wrong_shapes

_LEAST = 1e-7  # of a probability
_FACTOR_PRECISION, _OFFSET_PRECISION = 8.0, 0.5
_KEPT = 0.995  # of the certainty, at each update


class LogitLayer(Layer):
    """Weights are a factor for each class, then an offset for each."""

    name = "logits-1"

    def __init__(self, engine: Engine, output: Any) -> None:
        self._classes = list(output.classes)
        count = len(self._classes)
        self._prior = Posterior(np.repeat([1.0, 0.0], count), np.repeat([_FACTOR_PRECISION, _OFFSET_PRECISION], count))

    def fits(self, adapter: Adapter) -> str:
        """Of this layer, with weights for each class."""
        return wrong_shapes(adapter, self.name, {"mean": (2 * len(self._classes),)})

    def apply(self, engine: Callable[..., Any], adapters: Sequence[Adapter | None]) -> Applied:
        """One product for all rows that have an adapter; the others stay as they are to the last bit."""
        base = np.asarray(engine(), dtype=np.float64)
        shown = base.tolist()
        rows = [row for row, one in enumerate(adapters) if one is not None]
        if not rows:
            return Applied(answers=base, shown=shown)
        weights = np.stack([adapters[row].tensors["mean"] for row in rows]).astype(np.float64)  # type: ignore[union-attr]
        factors, offsets = np.split(weights, 2, axis=1)
        logits = factors * _logits(base[rows]) + offsets
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        answers = base.copy()
        answers[rows] = chances / chances.sum(axis=1, keepdims=True)
        return Applied(answers=answers, shown=shown)

    def parts(self, label: Any) -> Sequence[str]:
        """The class."""
        return (str(label),)

    def learned(self, adapter: Adapter | None, examples: Sequence[Example]) -> Mapping[str, Any]:
        """Of the labels of some answers, together."""
        logits = _logits(np.array([one.shown for one in examples], dtype=np.float64))
        labels = np.array([self._classes.index(one.parts[0]) for one in examples])
        count = len(self._classes)
        designs = np.concatenate([logits[:, :, None] * np.eye(count), np.tile(np.eye(count), (len(logits), 1, 1))], 2)
        return as_tensors(posterior_of(adapter, self._prior).faded(self._prior, _KEPT).learned(designs, labels))


def _logits(chances: Floats) -> Floats:
    found: Floats = np.log(np.maximum(chances, _LEAST))
    return found


LAYER = LogitLayer
