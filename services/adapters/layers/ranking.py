"""A person's taste: a last layer over the base's score and the vectors of items, learned from clicks on lists.

Whether an item is clicked is a logistic regression on 1, the base's score (from 0 to 1) and the item's vector. At first
its order is the base's. Items above the last click that were not clicked count as seen and not wanted
(T. Joachims: Optimizing search engines using clickthrough data, 2002); those below say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from contracts.adapter import Adapter
from contracts.engine import Engine
from contracts.taste import BASE_ALONE, Taste
from services.adapters.layer import Applied, Example, Layer
from services.adapters.posterior import Floats, Posterior, as_tensors, posterior_of, wrong_shapes

BASE_WEIGHT, BASE_PRECISION = 4.0, 16.0  # logits between an item of no relevance and the most relevant one
_CLICKED, _CLICKED_PRECISION = -2.0, 1.0
VECTOR_PRECISION = 1.0
KEPT = 0.98  # of the certainty, at each update: tastes change
TAKEN = 50  # latest items


class TasteLayer(Layer):
    """Weights are an offset, that of the base's score, then those of the vector; see `contracts.taste`."""

    name = "taste-1"
    entity = "user"

    def __init__(self, engine: Engine, output: Any) -> None:
        given: Any = engine
        self._engine, model = given, given.model
        self._vectors, self._names = model.arrays["vectors"], model.items
        width = self._vectors.shape[1]
        self._prior = Posterior(
            np.array([_CLICKED, BASE_WEIGHT, *[0.0] * width]),
            np.array([_CLICKED_PRECISION, BASE_PRECISION, *[VECTOR_PRECISION] * width]),
        )

    def fits(self, adapter: Adapter) -> str:
        """Of this layer, of the vectors' width, and with items of the catalogue."""
        if wrong := wrong_shapes(adapter, self.name, {"mean": self._prior.mean.shape}):
            return wrong
        taken = adapter.tensors.get("taken")
        if taken is None or taken.dtype != np.int32 or taken.ndim != 1:
            return "taken is no list of places"
        inside = not len(taken) or 0 <= int(taken.min()) <= int(taken.max()) < len(self._names)
        return "" if inside else "taken names items that are not in the catalogue"

    def apply(self, engine: Callable[..., Any], adapters: Sequence[Adapter | None]) -> Applied:
        """Lists of candidates that each person's own layer has put in order."""
        answers = engine(tastes=[BASE_ALONE if one is None else self._taste(one) for one in adapters])
        places = self._engine.places
        shown = [{"items": [places[item] for item in one.items], "base": one.base} for one in answers]
        return Applied(answers=answers, shown=shown)

    def _taste(self, adapter: Adapter) -> Taste:
        found: Taste | None = adapter.pieces.get(self.name)
        if found is None:
            mean = np.asarray(adapter.tensors["mean"], dtype=np.float64)
            found = Taste(
                trust=max(float(mean[1]), 0.0) / BASE_WEIGHT,
                weights=mean[2:] / BASE_WEIGHT,
                taken=adapter.tensors["taken"].tolist(),
            )
            adapter.pieces[self.name] = found
        return found

    def parts(self, label: Any) -> Sequence[str]:
        """The items that were taken; one that is taken later teaches then."""
        return tuple(dict.fromkeys(label))

    def learned(self, adapter: Adapter | None, examples: Sequence[Example]) -> Mapping[str, Any]:
        """Of some lists, one after another."""
        posterior = posterior_of(adapter, self._prior)
        taken: list[int] = [] if adapter is None else adapter.tensors["taken"].tolist()
        for one in examples:
            clicked = [self._engine.places[item] for item in one.parts if item in self._engine.places]
            rows, labels = self._rows(one.shown["items"], one.shown["base"], clicked)
            designs = np.stack([np.zeros_like(rows), rows], axis=1)
            posterior = posterior.faded(self._prior, KEPT).learned(designs, labels)
            taken = [item for item in taken if item not in clicked] + clicked
        return {**as_tensors(posterior), "taken": np.array(taken[-TAKEN:], dtype=np.int32)}

    def _rows(self, shown: Sequence[int], base: Sequence[float], clicked: Sequence[int]) -> tuple[Floats, Any]:
        """What is learned of a list: items that were clicked, and those above the last of them that were not."""
        last = max((at for at, item in enumerate(shown) if item in clicked), default=-1)
        known = dict(zip(shown, base, strict=True))
        passed = [item for item in shown[: last + 1] if item not in clicked]
        items = [*clicked, *passed]
        scores = np.array([known.get(item, 0.0) for item in items])
        vectors = np.asarray(self._vectors[items], dtype=np.float64).reshape(len(items), -1)
        rows = np.column_stack([np.ones(len(items)), scores, vectors])
        return rows, np.array([1] * len(clicked) + [0] * len(passed), dtype=np.int64)


LAYER = TasteLayer
