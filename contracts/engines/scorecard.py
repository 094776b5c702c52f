"""Scorecards: points for each value of each input, added up; ``model/scorecard.json``, in numpy alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError, model_validator

from contracts.document import Document
from contracts.engine import EngineOptions, EngineSpec, Reason
from contracts.errors import PlatformError
from contracts.tabular_engine import Calibration, Columns, Matrix, matrix, top_reasons

if TYPE_CHECKING:
    from contracts.bundle import Bundle

FILE = "scorecard.json"


class Attribute(Document):
    """One line of the card: which values get how many points, and what the training rows were like.

    Attributes:
        said: the values in words.  share: of the training rows.  rate: share of the positive class among them.
        woe: weight of evidence, log of the odds of the negative class against those of all rows.
    """

    said: str
    points: int
    share: float
    rate: float
    woe: float


class Characteristic(Document):
    """One input with its attributes; the last one is for a value that is missing, or in none of the others.

    Attributes:
        edges: of a number; a value from one edge to below the next has the attribute between them.
        groups: of a string; for each of the input's `categories` the position of its attribute.
        mean: points of a training row, on average; reasons are told against it.
    """

    name: str
    edges: list[float] | None = None
    groups: list[int] | None = None
    attributes: list[Attribute]
    mean: float

    @model_validator(mode="after")
    def _is_whole(self) -> Characteristic:
        if (self.edges is None) == (self.groups is None):
            raise ValueError(f"{self.name} needs either edges or groups")
        if self.edges is not None and len(self.edges) + 2 != len(self.attributes):
            raise ValueError(f"{self.name} has {len(self.edges)} edges and {len(self.attributes)} attributes")
        if self.groups is not None and not all(0 <= at < len(self.attributes) for at in self.groups):
            raise ValueError(f"{self.name} has a group without an attribute")
        return self


class Scorecard(Document):
    """The document. A score is `base` and the points of every input; so many more points halve the odds.

    log-odds of the positive class = (`level` - score) * ln 2 / `double`; `level` is the score of even odds.
    """

    base: int
    double: float
    level: float
    characteristics: list[Characteristic]
    calibration: dict[str, Any]


def read_scorecard(model: Path) -> Scorecard | None:
    """The card in a folder ``model/``; None where there is none.

    Raises:
        PlatformError: ``code="bad_bundle"``.
    """
    file = model / FILE
    if not file.exists():
        return None
    try:
        return Scorecard.model_validate_json(file.read_bytes())
    except ValidationError as err:
        raise PlatformError(
            f"{file} is no scorecard", detail=str(err), fix="train the model again", code="bad_bundle"
        ) from err


class ScorecardEngine:
    """Answers are calibrated probabilities; reasons are exact, against the mean of the training rows."""

    def __init__(self, bundle: Bundle) -> None:
        self._inputs = bundle.document.signature.inputs
        card = read_scorecard(bundle.model_path)
        names = [one.name for one in card.characteristics] if card else []
        if card is None or not set(names) <= {item.name for item in self._inputs}:
            raise PlatformError(
                f"bundle refused: {bundle.path}",
                detail=f"model/{FILE} is missing or for other inputs",
                fix="publish the model again",
                code="bad_bundle",
            )
        self._at = [[item.name for item in self._inputs].index(name) for name in names]
        self._lookups = [_lookup(one) for one in card.characteristics]
        self._means = np.array([one.mean for one in card.characteristics])
        self._base, self._level, self._rate = card.base, card.level, np.log(2) / card.double
        self._calibration = Calibration(card.calibration)

    def predict(self, columns: Columns) -> Matrix:
        """See `contracts.engine.Engine`."""
        score = self._base + self._points(columns).sum(axis=1)
        positive = self._calibration((self._level - score) * self._rate)
        return np.column_stack([1.0 - positive, positive])

    def explain(self, columns: Columns, top: int) -> list[list[Reason]]:
        """See `contracts.engine.Engine`."""
        points = self._points(columns)
        contributions = np.zeros((len(points), len(self._inputs)))
        contributions[:, self._at] = (self._means - points) * self._rate
        return top_reasons(self._inputs, columns, contributions, top)

    def _points(self, columns: Columns) -> Matrix:
        data = matrix(self._inputs, columns)
        points = np.empty((len(data), len(self._at)))
        for place, (at, (edges, table)) in enumerate(zip(self._at, self._lookups, strict=True)):
            value = data[:, at]
            absent = np.isnan(value)
            if edges is None:
                found = np.where(absent, len(table) - 1, value).astype(np.int64)
            else:
                found = np.where(absent, len(table) - 1, np.searchsorted(edges, value, side="right"))
            points[:, place] = table[found]
        return points


def _lookup(one: Characteristic) -> tuple[Matrix | None, Matrix]:
    """Edges of a number, or None, and the points by position: of an attribute, or of a category and then the rest."""
    points = np.array([each.points for each in one.attributes], dtype=np.float64)
    if one.edges is not None:
        return np.array(one.edges, dtype=np.float64), points
    return None, points[[*(one.groups or []), len(points) - 1]]


def load(bundle: Bundle, options: EngineOptions) -> ScorecardEngine:
    """See `contracts.engines.load_engine`."""
    return ScorecardEngine(bundle)


ENGINE = EngineSpec(name="scorecard", modality="tabular", extra="services", batch_rows=65_536, load=load)
