"""Detection: the objects of an image, each with its box, class and score."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, Field, create_model, model_validator

from contracts.problems.base import Output, Probability, Problem, Tensor, check_unique, one_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OVERLAP = 0.5  # intersection over union from which on a box counts as that of an object
_PLACES = 2  # of a pixel

Object = dict[str, Any]  # with the keys label, score and box: left, top, right, bottom


class DetectionOutput(Output):
    """Attributes: labels: the classes.  thresholds: of each class the score from which on an object is answered.
    longest: no image has more objects."""

    problem: Literal["detection"] = "detection"
    labels: tuple[str, ...] = Field(min_length=1)
    thresholds: tuple[Probability, ...]
    longest: int = Field(100, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_unique(self.labels, "class")
        if len(self.thresholds) != len(self.labels):
            raise ValueError(f"{len(self.labels)} classes have {len(self.thresholds)} thresholds")
        return self


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What a model finds in one image, the best first.

    Attributes:
        boxes: left, top, right, bottom in pixels of the image as it is seen, shape (objects, 4).
        scores: from 0 to 1, shape (objects,).  classes: numbers of classes, shape (objects,).
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    classes: NDArray[np.int64]

    def __eq__(self, other: object) -> bool:
        import numpy as np

        if not isinstance(other, Detections):
            return NotImplemented
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Truth:
    """An object that is in an image; `crowd` says that the box has many, and that nobody counts them."""

    label: str
    box: tuple[float, float, float, float]
    crowd: bool = False


def write_truth(objects: Iterable[Truth]) -> str:
    """Objects as a label column holds them: ``[{"label": "cup", "box": [3, 4, 20, 30]}]``, ``[]`` for none."""
    found = [{"label": one.label, "box": list(one.box), **({"crowd": True} if one.crowd else {})} for one in objects]
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))


def read_truth(text: str) -> list[Truth]:
    """The objects that `write_truth` wrote.

    Raises:
        ValueError: it is no such list.
    """
    try:
        return truths(json.loads(text))
    except json.JSONDecodeError:
        raise ValueError(_FORM) from None


_FORM = 'expected a list of objects: [{"label": "cup", "box": [left, top, right, bottom]}], [] for none'


def truths(value: Any) -> list[Truth]:
    """The objects of JSON values.

    Raises:
        ValueError: it is no list of objects, or a box has no area; it repeats no value.
    """
    if type(value) is not list or any(type(one) is not dict for one in value):
        raise ValueError(_FORM)
    found = []
    for at, one in enumerate(value):
        label, box, crowd = one.get("label"), one.get("box"), one.get("crowd", False)
        if set(one) - {"label", "box", "crowd"} or type(label) is not str or not label or type(crowd) is not bool:
            raise ValueError(_FORM)
        if type(box) is not list or len(box) != 4 or any(type(side) not in (int, float) for side in box):
            raise ValueError(f"object {at} has no box of four numbers: left, top, right, bottom")
        left, top, right, bottom = map(float, box)
        if not (left < right < float("inf") and top < bottom < float("inf") and min(left, top) > float("-inf")):
            raise ValueError(f"the box of object {at} has no area: left must be less than right, top less than bottom")
        found.append(Truth(label, (left, top, right, bottom), crowd))
    return found


def overlaps(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Intersection over union of each box with each other box, shape (boxes of one, boxes of other)."""
    import numpy as np

    first, second = np.asarray(one, np.float64).reshape(-1, 1, 4), np.asarray(other, np.float64).reshape(1, -1, 4)
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    shared = np.clip(sides, 0, None).prod(axis=-1)
    both = (first[..., 2:] - first[..., :2]).prod(axis=-1) + (second[..., 2:] - second[..., :2]).prod(axis=-1)
    found: NDArray[np.float64] = shared / np.maximum(both - shared, 1e-12)
    return found


def within(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """The share of each box that lies in each other box, shape (boxes of one, boxes of other)."""
    import numpy as np

    first, second = np.asarray(one, np.float64).reshape(-1, 1, 4), np.asarray(other, np.float64).reshape(1, -1, 4)
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    found: NDArray[np.float64] = np.clip(sides, 0, None).prod(axis=-1) / np.maximum(
        (first[..., 2:] - first[..., :2]).prod(axis=-1), 1e-12
    )
    return found


def matches(truth: Sequence[Truth], labels: Sequence[str], found: Detections) -> NDArray[np.int64]:
    """Of each found object the place in `truth` that it is, each once; -1 for a false alarm, -2 within a crowd.

    The best score chooses first, the object of its class that it overlaps most, by at least `OVERLAP`.
    """
    import numpy as np

    made = np.full(len(found.scores), -1)
    if not truth or not len(made):
        return made
    boxes = np.array([one.box for one in truth])
    near = overlaps(found.boxes, boxes)
    known = np.array([labels.index(one.label) if one.label in labels else -1 for one in truth])
    crowd = np.array([one.crowd for one in truth])
    free = ~crowd
    inside = within(found.boxes, boxes)
    for at in np.argsort(-found.scores, kind="stable"):
        same = known == found.classes[at]
        could = np.where(same & free, near[at], 0.0)
        best = int(could.argmax())
        if could[best] >= OVERLAP:
            made[at], free[best] = best, False
        elif (same & crowd & (inside[at] >= OVERLAP)).any():
            made[at] = -2
    return made


class Detection(Problem["NDArray[np.object_]"]):
    """Answers are `Detections`, an object array, shape (rows,); a decision is the list of `Object` that is answered."""

    name = "detection"
    output = DetectionOutput

    def wrong(self, output: DetectionOutput, answers: NDArray[np.object_], rows: int) -> str:
        """One `Detections` per row, its boxes with an area, scores from 0 to 1, classes that are there."""
        import numpy as np

        found = getattr(answers, "shape", None)
        if found != (rows,):
            return f"the model gives {found}, not one list of objects per image: {(rows,)}"
        for row, one in enumerate(answers):
            if not isinstance(one, Detections):
                return f"the answer to row {row} is {type(one).__name__}, not a list of objects"
            many = len(one.scores)
            if one.boxes.shape != (many, 4) or one.classes.shape != (many,):
                return f"the answer to row {row} has {many} objects, and not as many boxes or classes"
            if many > output.longest:
                return f"the answer to row {row} has {many} objects, at most {output.longest} may be"
            if not np.isfinite(one.boxes).all() or (one.boxes[:, 2:] < one.boxes[:, :2]).any():
                return f"the answer to row {row} has a box whose corners are none"
            if not ((one.scores >= 0) & (one.scores <= 1)).all():
                return f"the answer to row {row} has a score that is not between 0 and 1"
            if not ((one.classes >= 0) & (one.classes < len(output.labels))).all():
                return f"the answer to row {row} has a class that is none of {len(output.labels)}"
        return ""

    def expected(self, output: DetectionOutput, answers: NDArray[np.object_], row: int) -> list[Object]:
        """The objects that are answered."""
        return objects(output, answers[row], kept(output, answers[row]))

    def differs(
        self, output: DetectionOutput, expected: Any, answers: NDArray[np.object_], row: int, tolerance: float
    ) -> str:
        """By the first object that is not there, or is too much; one whose score is at its threshold may be either."""
        if type(expected) is not list:
            return "expected another kind of answer"
        got = objects(output, answers[row], range(len(answers[row].scores)))
        least = dict(zip(output.labels, output.thresholds, strict=True))
        sure = [one for one in got if one["score"] >= least[one["label"]] + tolerance]
        wanted = [one for one in expected if one["score"] >= least[one["label"]] + tolerance]
        for some, others, what in ((wanted, got, "expected"), (sure, expected, "not expected")):
            for one in some:
                if not any(_same(one, other, tolerance) for other in others):
                    place = ", ".join(f"{side:.5g}" for side in one["box"])
                    return f"{what}: {one['label']} at {place} with score {one['score']:.4g}"
        return ""

    def decide(self, output: DetectionOutput, decision: Any, answers: NDArray[np.object_]) -> list[list[Object]]:
        """The objects whose score reaches the threshold of their class."""
        return [objects(output, one, kept(output, one)) for one in answers]

    def documents(
        self, output: DetectionOutput, decision: Any, answers: NDArray[np.object_], decided: Sequence[list[Object]]
    ) -> list[dict[str, Any]]:
        """The objects that are answered."""
        return [{"objects": found} for found in decided]

    def answer_model(self, output: DetectionOutput) -> type[BaseModel]:
        """A list of objects."""
        about = "left, top, right, bottom in pixels of the image, turned as its camera noted"
        sides: Any = (tuple[float, float, float, float], Field(description=about))
        one = create_model("Object", label=(one_of(output.labels), ...), score=(Probability, ...), box=sides)
        many: Any = (
            list[one],
            Field(description="the best first; empty where nothing is found", max_length=output.longest),
        )
        return create_model("Prediction", objects=many)

    def tensors(self, output: DetectionOutput) -> list[Tensor]:
        """How many objects, and of each its box, score and class; an image with fewer is filled with zeros and ""."""
        return [
            Tensor(name="count", datatype="INT64"),
            Tensor(name="boxes", datatype="FP64", shape=(output.longest, 4)),
            Tensor(name="scores", datatype="FP64", shape=(output.longest,)),
            Tensor(name="labels", datatype="BYTES", shape=(output.longest,)),
        ]

    def values(
        self, output: DetectionOutput, name: str, answers: NDArray[np.object_], decided: Sequence[list[Object]]
    ) -> list[Any]:
        """Of the four tensors."""
        if name == "count":
            return [len(found) for found in decided]
        kinds: dict[str, tuple[str, list[Any]]] = {
            "labels": ("label", [""]),
            "scores": ("score", [0.0]),
            "boxes": ("box", [0.0] * 4),
        }
        key, nothing = kinds[name]
        made: list[Any] = []
        for found in decided:
            for one in found:
                made += one[key] if key == "box" else [one[key]]
            made += nothing * (output.longest - len(found))
        return made


def kept(output: DetectionOutput, one: Detections) -> list[int]:
    """The places of the objects that are answered."""
    import numpy as np

    least = np.array(output.thresholds)[one.classes]
    places: list[int] = np.flatnonzero(one.scores >= least).tolist()
    return places


def surest(output: DetectionOutput, one: Detections) -> int | None:
    """The place of the answered object with the highest score; None where none is answered."""
    return max(kept(output, one), key=lambda at: float(one.scores[at]), default=None)


def left_of(one: Detections, place: int, found: Detections) -> float:
    """How much of an object is still found: of those of its class the highest score, times the overlap of both boxes
    (V. Petsiuk et al., D-RISE, 2021); 0 where there is none."""
    same = found.classes == one.classes[place]
    if not same.any():
        return 0.0
    return float((overlaps(one.boxes[place], found.boxes[same])[0] * found.scores[same]).max())


def objects(output: DetectionOutput, one: Detections, places: Collection[int]) -> list[Object]:
    """Some objects of an image as JSON values: ``label``, ``score`` and ``box``."""
    return [
        {
            "label": output.labels[one.classes[at]],
            "score": float(one.scores[at]),
            "box": [round(float(side), _PLACES) for side in one.boxes[at]],
        }
        for at in places
    ]


def described(found: Sequence[Object]) -> dict[str, Any]:
    """What the log keeps and monitors watch of the objects that are answered: ``objects``, how many; the means of their
    ``score`` and of their ``side`` (the square root of the area), None without one; the commonest ``class``, else "".
    """
    if not found:
        return {"objects": 0, "score": None, "side": None, "class": ""}
    sides = [((right - left) * (bottom - top)) ** 0.5 for left, top, right, bottom in (one["box"] for one in found)]
    names = [one["label"] for one in found]
    score, side = sum(one["score"] for one in found) / len(found), sum(sides) / len(found)
    common = max(dict.fromkeys(names), key=names.count)
    return {"objects": len(found), "score": round(score, 6), "side": round(side, _PLACES), "class": common}


def _same(one: Any, other: Any, tolerance: float) -> bool:
    """Whether two objects are the same but for rounding: a part of a pixel, and `tolerance` of a side and the score."""
    slack = 2 * 10.0**-_PLACES + tolerance * max(one["box"][2] - one["box"][0], one["box"][3] - one["box"][1])
    return (
        one["label"] == other["label"]
        and abs(one["score"] - other["score"]) <= tolerance
        and all(abs(a - b) <= slack for a, b in zip(one["box"], other["box"], strict=True))
    )


PROBLEM = Detection()
