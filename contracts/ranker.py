"""The second stage of a recommender: candidates of a retriever in the order of how likely they are taken when seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from contracts.document import Document
from contracts.ranking_features import FEATURES, ITEM, PERSON, STATE, WINDOWED, windowed

Floats = NDArray[np.float64]
SPEC, BOOSTER, NETWORK = "ranker.json", "ranker.txt", "ranker.onnx"
HISTORY = 20  # latest items that a network is told
_ARRAYS = ("rank.mean", "rank.scale", "rank.weights", "rank.spread")  # of the last layer
STATE_ARRAY = "rank.state"
WINDOW_ARRAYS = ("rank.people_windows", "rank.item_windows", "rank.context")  # of the feature store, as training ended


class RankerSpec(Document):
    """The content of ``ranker.json``.

    Attributes:
        features: what the model is told of each candidate.
        slope, intercept: of the logistic curve that makes chances of its scores.
        looked: chance that each place is looked at, of the first one's, estimated; it is taken out of the clicks.
        candidates: of the retriever.
    """

    format: Literal[1] = 1
    kind: Literal["lambdarank", "dlrm"]
    features: list[str]
    slope: float = Field(gt=0)
    intercept: float
    looked: list[float] = Field(min_length=1)
    candidates: int = Field(500, ge=1)


@dataclass(frozen=True)
class Ranker:
    """A ranker in memory.

    Attributes:
        raw: scores of candidates, given their features, their places and those of the history, the oldest first.
        arrays: ``rank.state`` of all items (`contracts.ranking_features.STATE`); of the last layer, a logistic
            regression on the score and the features: their ``mean`` and ``scale``, the ``weights`` and a ``spread``
            that makes draws of its posterior from standard normal ones (Laplace's approximation).
    """

    spec: RankerSpec
    raw: Callable[[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]], Floats]
    arrays: dict[str, NDArray[Any]]

    def chances(self, found: NDArray[np.float32], candidates: NDArray[np.int64], history: NDArray[np.int64]) -> Floats:
        """How likely each candidate is taken by who looks at it."""
        return logistic(self.spec.slope * self.raw(found, candidates, history) + self.spec.intercept)

    def draws(self, found: NDArray[np.float32], chances: Floats, count: int, rng: np.random.Generator) -> Floats:
        """Scores by `count` draws of the last layer, shape (count, candidates): Thompson sampling.

        O. Chapelle, L. Li: An empirical evaluation of Thompson sampling, 2011.
        """
        mean, scale, weights, spread = self._layer
        inner = last_layer(chances, found, mean, scale)
        drawn = weights + rng.standard_normal((count, len(weights))) @ spread.T
        return np.asarray(drawn @ inner.T)

    @property
    def windows(self) -> bool:
        """Whether it is told of features of the feature store."""
        return len(self.spec.features) > len(FEATURES)

    def snapshot(self, person: int, items: NDArray[np.int64]) -> NDArray[np.float32]:
        """`WINDOWED` of candidates as they were when the training ended.

        Args:
            person: a row of the people that it was trained on; -1, or a later one: nothing is known of them.
        """
        people, of_items, context = (self.arrays[name] for name in WINDOW_ARRAYS)
        mine = people[person] if 0 <= person < len(people) else windowed({}, 1)[0, : len(PERSON)]
        count = len(items)
        parts = (
            np.broadcast_to(mine, (count, len(PERSON))),
            of_items[items],
            np.broadcast_to(context, (count, len(context))),
        )
        return np.concatenate(parts, axis=1)

    @cached_property
    def _layer(self) -> tuple[Floats, ...]:
        return tuple(np.asarray(self.arrays[name], dtype=np.float64) for name in _ARRAYS)


def logistic(values: Any) -> Floats:
    """1 / (1 + exp(-x))."""
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -40, 40))))


def last_layer(chances: Floats, found: NDArray[Any], mean: Floats, scale: Floats) -> Floats:
    """What the last layer is told: the log odds of each chance, the standardised features, and one."""
    odds = np.log(np.maximum(chances, 1e-12)) - np.log(np.maximum(1 - chances, 1e-12))
    return np.column_stack([odds, (found - mean) / scale, np.ones(len(chances))])


def read_ranker(folder: Path, arrays: dict[str, NDArray[Any]], items: int) -> Ranker | None:
    """The ranker of a model's folder; None where it has none. Takes its arrays out of `arrays`.

    Raises:
        ValueError: its features or its items are not those of this release or of the model; KeyError: one is missing.
    """
    mine = {name: arrays.pop(name) for name in (*_ARRAYS, STATE_ARRAY, *WINDOW_ARRAYS) if name in arrays}
    if not (folder / SPEC).exists():
        return None
    try:
        spec = RankerSpec.model_validate(json.loads((folder / SPEC).read_text(encoding="utf-8")))
    except ValidationError as err:
        raise ValueError(f"{SPEC}: {err}") from err
    if spec.features not in (list(FEATURES), [*FEATURES, *WINDOWED]):
        raise ValueError(f"the ranker takes {len(spec.features)} features, this release has others: {len(FEATURES)}")
    if mine[STATE_ARRAY].shape != (items, len(STATE)):
        raise ValueError(f"{STATE_ARRAY} has {len(mine[STATE_ARRAY])} rows, not {items}: it is of another catalogue")
    if len(spec.features) > len(FEATURES) and mine[WINDOW_ARRAYS[1]].shape != (items, len(ITEM)):
        raise ValueError(f"{WINDOW_ARRAYS[1]} has {len(mine[WINDOW_ARRAYS[1]])} rows, not {items}")
    if len(mine["rank.weights"]) != len(spec.features) + 2:
        raise ValueError("rank.weights are not those of the last layer")
    return Ranker(spec, _READ[spec.kind](folder), mine)


def booster_scores(booster: Any) -> Callable[..., Floats]:
    """Scores of a LightGBM booster, which looks at the features alone."""
    return lambda found, candidates, history: np.asarray(booster.predict(found, num_threads=1))


def _read_booster(folder: Path) -> Callable[..., Floats]:
    from contracts.tabular_engine import import_lightgbm

    if not (folder / BOOSTER).exists():
        raise ValueError(f"{BOOSTER} is missing")
    return booster_scores(import_lightgbm().Booster(model_file=str(folder / BOOSTER)))


def network_scores(content: bytes) -> Callable[..., Floats]:
    """Scores of a network in ONNX.

    Raises:
        ValueError: it cannot be read.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as err:  # its errors have no common class
        raise ValueError(f"{NETWORK}: {err}") from err

    def scores(found: NDArray[np.float32], candidates: NDArray[np.int64], history: NDArray[np.int64]) -> Floats:
        given = {"features": found, "items": candidates, "history": padded(history)}
        return np.asarray(session.run(None, given)[0], dtype=np.float64)

    return scores


def _read_network(folder: Path) -> Callable[..., Floats]:
    return network_scores((folder / NETWORK).read_bytes())


def padded(history: NDArray[np.int64]) -> NDArray[np.int64]:
    """The latest items of a history; -1 where there are fewer."""
    found = np.full(HISTORY, -1, dtype=np.int64)
    latest = history[-HISTORY:]
    found[HISTORY - len(latest) :] = latest
    return found


_READ: dict[str, Callable[[Path], Callable[..., Floats]]] = {"lambdarank": _read_booster, "dlrm": _read_network}
