"""Encrypted inference: what a client has to know of a linear model, and what the two send each other.

A score is a sum over slots: numbers that the client makes of a row (here), times weights that only the service has.
CKKS (Cheon, Kim, Kim, Song: Homomorphic encryption for arithmetic of approximate numbers, 2017) in slots of one
ciphertext, by TenSEAL. See docs/adr/0024.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from contracts.bundle import Bundle, Input, Signature
from contracts.document import Document
from contracts.engines.scorecard import read_scorecard
from contracts.errors import PlatformError
from contracts.problems.classification import Decision
from contracts.tabular_engine import Calibration, Columns, Matrix, matrix

FILE = "linear.json"
# 128 bits of security (homomorphicencryption.org, 2018: at most 218 bits of modulus at degree 8192); one
# multiplication, and values below 2**19 in the answer.
DEGREE, MODULI, SCALE_BITS, SLOTS = 8192, (60, 40, 60), 40, 4096
REACH = 2.0**17  # no sum of weights times slots of allowed size is larger, and no mask
_BOUNDS = tuple(2.0**bits for bits in range(10, 4, -1))
_FRAMES = 4096
LINEAR_RECIPES = "logistic, and scorecard"


class LinearModel(Document):
    """``model/linear.json``: what the graph of a linear model computes, see `pipelines.training.onnx_tabular`."""

    median: list[float]
    mean: list[float]
    deviation: list[float]
    weights: list[float]
    absent: list[float]
    bias: float
    log_scale: bool
    calibration: dict[str, Any]


class Standardised(Document):
    """Slots of numbers: each input as the model scales it, then for `lacking`, by position, whether it is missing."""

    kind: Literal["standardised"] = "standardised"
    median: list[float]
    mean: list[float]
    deviation: list[float]
    lacking: list[int]
    log_scale: bool

    @property
    def width(self) -> int:
        """Slots of a row."""
        return len(self.median) + len(self.lacking)

    def slots(self, inputs: Sequence[Input], columns: Columns) -> Matrix:
        """The slots of each row, shape (rows, width)."""
        data = matrix(inputs, columns)
        missing = np.isnan(data)
        filled = np.where(missing, np.array(self.median), data)
        bent = np.sign(filled) * np.log1p(np.abs(filled)) if self.log_scale else filled
        scaled = (bent - np.array(self.mean)) / np.array(self.deviation)
        return np.concatenate([scaled, missing[:, self.lacking]], axis=1)

    def named(self, inputs: Sequence[Input], slot: int) -> str:
        """The input that a slot is made of."""
        return inputs[slot if slot < len(inputs) else self.lacking[slot - len(inputs)]].name


class Bins(Document):
    """The bins of one input, as in `contracts.engines.scorecard.Characteristic`, without points, shares or rates.

    The bin of a missing value has no slot.
    """

    name: str
    edges: list[float] | None = None
    groups: list[int] | None = None
    bins: int


class Binned(Document):
    """Slots of a scorecard: one for each bin, 1 for the one that a value is in, else 0."""

    kind: Literal["binned"] = "binned"
    characteristics: list[Bins]

    @property
    def width(self) -> int:
        """Slots of a row."""
        return sum(one.bins for one in self.characteristics)

    def slots(self, inputs: Sequence[Input], columns: Columns) -> Matrix:
        """The slots of each row, shape (rows, width)."""
        data, names = matrix(inputs, columns), [item.name for item in inputs]
        parts = []
        for one in self.characteristics:
            value = data[:, names.index(one.name)]
            part = np.zeros((len(data), one.bins))
            known = ~np.isnan(value)
            if one.edges is not None:
                found = np.searchsorted(np.array(one.edges), value[known], side="right")
            else:
                found = np.array(one.groups or [], dtype=np.int64)[value[known].astype(np.int64)]
            part[np.flatnonzero(known)[found < one.bins], found[found < one.bins]] = 1.0
            parts.append(part)
        return np.concatenate(parts, axis=1)

    def named(self, inputs: Sequence[Input], slot: int) -> str:
        """The input that a slot is made of."""
        ends = np.cumsum([one.bins for one in self.characteristics])
        return self.characteristics[int(np.searchsorted(ends, slot, side="right"))].name


class Link(Document):
    """What a decrypted sum is.

    kind: log-odds of the second class, or the points of a card, whose log-odds are (level - points) * rate.
    calibration: of log-odds, see `contracts.tabular_engine.Calibration`.
    """

    kind: Literal["log_odds", "points"]
    level: float = 0.0
    rate: float = 1.0
    calibration: dict[str, Any]

    def probabilities(self, sums: Matrix) -> Matrix:
        """Both classes' probabilities, shape (rows, 2), of decrypted sums, shape (rows,)."""
        log_odds = (self.level - np.round(sums)) * self.rate if self.kind == "points" else sums
        positive = Calibration(self.calibration)(log_odds)
        return np.column_stack([1.0 - positive, positive])


class Scheme(Document):
    """Parameters of the keys; other keys are refused."""

    name: Literal["ckks"] = "ckks"
    poly_modulus_degree: int = DEGREE
    coeff_mod_bit_sizes: tuple[int, ...] = MODULI
    scale_bits: int = SCALE_BITS


class Limits(Document):
    """What a service accepts.

    bound: no slot may be larger than this, up or down.  body_bytes: of a request.
    budget_rows, budget_seconds: rows that one caller may have scored in so many seconds.
    """

    bound: float
    body_bytes: int
    budget_rows: int
    budget_seconds: float


class Published(Document):
    """What ``GET /encrypted`` says: all that a client needs, and no weight."""

    model: str
    version: str
    form: Annotated[Standardised | Binned, Field(discriminator="kind")]
    link: Link
    signature: Signature
    decision: Decision | None
    scheme: Scheme = Scheme()
    limits: Limits

    @property
    def id(self) -> str:
        """Names what a request was made for: of another form the sums would be nonsense."""
        said = self.model_dump(mode="json", include={"model", "version", "form", "link", "scheme"})
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


class Head(Document):
    """The first frame of ``POST /encrypted/score``.

    Attributes:
        key: id of the caller's public keys, see `key_id`.  published: id of what the rows were prepared by.
        layout: ``rows``: one row after the other in the slots of each ciphertext, answered in as many ciphertexts;
            ``columns``: one ciphertext for each slot of a row, up to `SLOTS` rows, answered in one.
        attached: whether the next frame is the public keys themselves.
    """

    key: str = Field(pattern=r"^[0-9a-f]{32}$")
    published: str = Field(max_length=64)
    layout: Literal["rows", "columns"]
    rows: int = Field(ge=1)
    attached: bool = False


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A model as a sum over slots: `form` and `link` may be published, `weights`, shape (width,), and `bias` not."""

    form: Standardised | Binned
    link: Link
    weights: NDArray[np.float64]
    bias: float

    @property
    def bound(self) -> float:
        """The largest size of slots with which no sum leaves `REACH`; a power of two, so that it tells little.

        Raises:
            PlatformError: ``code="not_encryptable"``: the weights are too large for these parameters.
        """
        reach = float(np.abs(self.weights).sum())
        for bound in _BOUNDS:
            if reach * bound + abs(self.bias) <= REACH:
                return bound
        raise _refused(f"the sum of its weights is above {(REACH - abs(self.bias)) / _BOUNDS[-1]:.0f}")


def open_linear(bundle: Bundle) -> Linear:
    """The model of a bundle as a sum over slots.

    Raises:
        PlatformError: ``code="not_encryptable"``: it is none, and says what can be.
    """
    document = bundle.document
    if document.modality != "tabular" or document.signature.problem.name != "classification":
        raise _refused(f"{document.name} answers {document.signature.problem.name} of {document.modality} inputs")
    card = read_scorecard(bundle.model_path)
    found = _of_card(card) if card else _of_linear(bundle.model_path / FILE, document.recipe)
    if found.form.width > SLOTS:
        raise _refused(f"a row has {found.form.width} slots, and a ciphertext {SLOTS}")
    return found


def _of_card(card: Any) -> Linear:
    """The points of each bin, less those of a missing value, which are part of the bias."""
    bins, weights, bias = [], [], float(card.base)
    for one in card.characteristics:
        points = [each.points for each in one.attributes]
        bins.append(Bins(name=one.name, edges=one.edges, groups=one.groups, bins=len(points) - 1))
        weights += [float(each - points[-1]) for each in points[:-1]]
        bias += points[-1]
    link = Link(kind="points", level=card.level, rate=float(np.log(2) / card.double), calibration=card.calibration)
    return Linear(form=Binned(characteristics=bins), link=link, weights=np.array(weights), bias=bias)


def _of_linear(file: Path, recipe: str) -> Linear:
    """Platt's slope and offset become part of the weights; an isotonic calibration has to be published."""
    try:
        one = LinearModel.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise _refused(f"its recipe is {recipe}, or it was trained before {FILE} was written") from None
    except ValidationError as err:
        raise PlatformError(
            f"{file} is no linear model", detail=str(err), fix="train the model again", code="bad_bundle"
        ) from err
    lacking = [at for at, weight in enumerate(one.absent) if weight != 0]
    weights, bias = np.array([*one.weights, *(one.absent[at] for at in lacking)]), one.bias
    calibration = one.calibration
    if calibration["kind"] == "platt":
        weights, bias = weights * calibration["a"], bias * calibration["a"] + calibration["b"]
        calibration = {"kind": "none"}
    form = Standardised(
        median=one.median, mean=one.mean, deviation=one.deviation, lacking=lacking, log_scale=one.log_scale
    )
    return Linear(form=form, link=Link(kind="log_odds", calibration=calibration), weights=weights, bias=float(bias))


def _refused(detail: str) -> PlatformError:
    return PlatformError(
        "this model cannot answer encrypted rows",
        detail=detail,
        fix=f"train a recipe whose score is a sum over its inputs: {LINEAR_RECIPES}; or serve it without encryption",
        code="not_encryptable",
    )


def key_id(context: bytes) -> str:
    """Names public keys by their content."""
    return hashlib.sha256(context).hexdigest()[:32]


def pack(frames: Sequence[bytes]) -> bytes:
    """Frames as one body: of each its length, four bytes with the highest first, and its bytes."""
    return b"".join(part for frame in frames for part in (len(frame).to_bytes(4, "big"), frame))


def unpack(body: bytes) -> list[bytes]:
    """The frames of a body.

    Raises:
        ValueError: it ends within a frame, or has more than anybody sends.
    """
    frames: list[bytes] = []
    at = 0
    while at < len(body):
        end = at + 4 + int.from_bytes(body[at : at + 4], "big")
        if end > len(body) or at + 4 > len(body):
            raise ValueError(f"the body ends within frame {len(frames)} (counted from 0)")
        frames.append(body[at + 4 : end])
        at = end
        if len(frames) > _FRAMES + 2:
            raise ValueError(f"more than {_FRAMES} ciphertexts")
    return frames
