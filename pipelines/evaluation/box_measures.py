"""Average precision and recall of boxes as COCO defines them (T.-Y. Lin et al.: Microsoft COCO, 2014).

What is published of a whole set is what faster-coco-eval says; intervals and comparisons weigh rows, which it cannot,
and come from `Matched`, whose numbers are the same where every row counts once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.problems.detection import Detections, Truth, overlaps, within

if TYPE_CHECKING:
    from numpy.typing import NDArray

IOUS = np.linspace(0.5, 0.95, 10)
MOST = 100  # boxes of an image and class that count
SIZES = ("all", "small", "medium", "large")
_AREAS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]], np.float64)
_RECALLS = np.linspace(0, 1, 101)
_WHOLE = {"map": ("all", slice(None)), "map50": ("all", slice(0, 1)), "map75": ("all", slice(5, 6))}
OF_SETS = (*_WHOLE, "mar", *(f"map_{size}" for size in SIZES[1:]))


def coco_measures(
    truth: Sequence[Sequence[Truth]], found: Sequence[Detections], labels: Sequence[str]
) -> dict[str, float]:
    """`OF_SETS`, and ``ap:CLASS`` and ``ap50:CLASS`` of each class, by faster-coco-eval; NaN where nothing is there."""
    from faster_coco_eval import COCO, COCOeval_faster

    images = [{"id": row, "width": 1, "height": 1} for row in range(1, len(truth) + 1)]
    number = {name: at for at, name in enumerate(labels, 1)}
    known: list[dict[str, Any]] = [
        {"image_id": row, "category_id": number[one.label], "iscrowd": int(one.crowd), **_placed(one.box)}
        for row, objects in enumerate(truth, 1)
        for one in objects
        if one.label in number
    ]
    said: list[dict[str, Any]] = [
        {"image_id": row, "category_id": int(kind) + 1, "score": float(score), **_placed(box)}
        for row, one in enumerate(found, 1)
        for box, score, kind in zip(one.boxes.tolist(), one.scores, one.classes, strict=True)
    ]
    categories = [{"id": at, "name": name} for name, at in number.items()]
    whole = {"info": {}, "images": images, "categories": categories}
    truths, answers = (
        COCO({**whole, "annotations": [{"id": at, **one} for at, one in enumerate(some, 1)]}) for some in (known, said)
    )
    judge = COCOeval_faster(truths, answers, "bbox", print_function=_silent)
    judge.evaluate()
    judge.accumulate()
    return _named(judge.eval["precision"][:, :, :, :, -1], judge.eval["recall"][:, :, :, -1], labels)


def _silent(*_: Any) -> None:
    pass


def _placed(box: Sequence[float]) -> dict[str, Any]:
    left, top, right, bottom = box
    return {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}


def _named(precision: Any, recall: Any, labels: Sequence[str], only: Collection[str] | None = None) -> dict[str, float]:
    """Metrics of precision (overlaps, recalls, classes, sizes) and recall (overlaps, classes, sizes); -1 is unknown."""
    parts = {name: precision[part, :, :, SIZES.index(size)] for name, (size, part) in _WHOLE.items()}
    parts["mar"] = recall[:, :, 0]
    parts |= {f"map_{size}": precision[..., at] for at, size in enumerate(SIZES) if at}
    for at, name in enumerate(labels):
        parts[f"ap:{name}"] = precision[:, :, at, 0]
        parts[f"ap50:{name}"] = precision[:1, :, at, 0]
    return {name: _mean(part) for name, part in parts.items() if only is None or name in only}


def _mean(values: Any) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")


class Matched:
    """Which boxes are objects, at each of `IOUS` and for each of `SIZES`, so that rows can be weighed.

    only: the metrics that are asked for; without those of sizes it takes a quarter of the time.
    """

    def __init__(
        self,
        truth: Sequence[Sequence[Truth]],
        found: Sequence[Detections],
        labels: Sequence[str],
        only: Collection[str] | None = None,
    ) -> None:
        self._labels, self._only = labels, only
        sizes = only is None or any(f"map_{size}" in only for size in SIZES[1:])
        self._areas = _AREAS if sizes else _AREAS[:1]
        self._classes = [self._of_class(at, name, truth, found) for at, name in enumerate(labels)]

    def _of_class(self, kind: int, name: str, truth: Any, found: Any) -> tuple[Any, ...]:
        """Row and score of each box, whether it is right and whether it counts (sizes, overlaps, boxes); and of each
        row how many objects are there (rows, sizes)."""
        rows, scores, right, counted = [], [], [], []
        there = np.zeros((len(truth), len(self._areas)))
        for row, (objects, one) in enumerate(zip(truth, found, strict=True)):
            chosen = np.flatnonzero(one.classes == kind)[:MOST]
            mine = [item for item in objects if item.label == name]
            boxes = np.array([item.box for item in mine]).reshape(-1, 4)
            area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
            crowd = np.array([item.crowd for item in mine], bool)
            # COCO takes both ends of a range as within it.
            ignored = crowd | (area < self._areas[:, :1]) | (area > self._areas[:, 1:])
            there[row] = (~ignored).sum(axis=1)
            hit, counts = _match(one.boxes[chosen], boxes, crowd, ignored, self._areas)
            rows.append(np.full(len(chosen), row))
            scores.append(one.scores[chosen])
            right.append(hit)
            counted.append(counts)
        order = np.argsort(-np.concatenate(scores), kind="stable")
        joined = [np.concatenate(parts, axis=-1)[..., order] for parts in (right, counted)]
        return np.concatenate(rows)[order], *joined, there

    def measure(self, weight: NDArray[np.float64] | None = None) -> dict[str, float]:
        """As `coco_measures`, of rows that count as `weight` says."""
        count = len(self._labels)
        precision = np.full((len(IOUS), len(_RECALLS), count, len(SIZES)), -1.0)
        recall = np.full((len(IOUS), count, len(SIZES)), -1.0)
        for at, (rows, right, counted, there) in enumerate(self._classes):
            w = np.ones(len(there)) if weight is None else np.asarray(weight)
            for size, total in enumerate(w @ there):
                if total > 0:
                    precision[:, :, at, size], recall[:, at, size] = _curve(
                        right[size] * w[rows], counted[size] * w[rows], float(total)
                    )
        return _named(precision, recall, self._labels, self._only)

    def curve(self, kind: int) -> NDArray[np.float64]:
        """Precision at 101 recalls of one class, at an overlap of 0.5; -1 where there is no object."""
        _, right, counted, there = self._classes[kind]
        total = float(there[:, 0].sum())
        return _curve(right[0][:1], counted[0][:1], total)[0][0] if total else np.full(len(_RECALLS), -1.0)


def _match(found: Any, boxes: Any, crowd: Any, ignored: Any, areas: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of boxes, the best score first: whether each is an object, and whether it counts, (sizes, overlaps, boxes)."""
    shape = (len(areas), len(IOUS), len(found))
    right, counted = np.zeros(shape, bool), np.zeros(shape, bool)
    near = _near(found, boxes, crowd)
    area = (found[:, 2:] - found[:, :2]).prod(axis=1) if len(found) else np.zeros(0)
    outside = (area[None] < areas[:, :1]) | (area[None] > areas[:, 1:])  # sizes, boxes
    free = np.ones((len(areas), len(IOUS), len(boxes)), bool)
    least = np.minimum(IOUS, 1 - 1e-10)[None, :, None]
    for at in range(len(found)):
        if not len(boxes) or near[at].max() < IOUS[0]:
            counted[:, :, at] = ~outside[:, None, at]
            continue
        could = np.where((free | crowd) & (near[at] >= least), near[at], -1.0)
        asked = np.where(ignored[:, None], -1.0, could)
        best = np.where(asked.max(axis=2) >= 0, _last_best(asked), _last_best(could))
        has = could.max(axis=2) >= 0
        skipped = np.take_along_axis(np.broadcast_to(ignored[:, None], could.shape), best[..., None], 2)[..., 0] & has
        right[:, :, at] = has & ~skipped
        counted[:, :, at] = np.where(has, ~skipped, ~outside[:, None, at])
        taken = np.zeros_like(free)
        np.put_along_axis(taken, best[..., None], has[..., None], 2)
        free &= ~taken
    return right, counted


def _near(found: Any, boxes: Any, crowd: Any) -> NDArray[np.float64]:
    """Intersection over union; over the box alone where the object is a crowd."""
    near = overlaps(found, boxes)
    if crowd.any():
        near[:, crowd] = within(found, boxes)[:, crowd]
    return near


def _last_best(values: Any) -> NDArray[np.int64]:
    """The place of the largest value along the last axis, of equal ones the last."""
    found: NDArray[np.int64] = values.shape[2] - 1 - values[..., ::-1].argmax(axis=2)
    return found


def _curve(right: Any, counted: Any, total: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision at each of 101 recalls (overlaps, recalls), and the largest recall (overlaps,)."""
    hits, alarms = right.cumsum(axis=1), counted.cumsum(axis=1)
    if not hits.shape[1]:
        return np.zeros((len(hits), len(_RECALLS))), np.zeros(len(hits))
    precision = hits / np.maximum(alarms, np.spacing(1))
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    padded = np.concatenate([highest, np.zeros((len(hits), 1))], axis=1)
    recall = hits / total
    places = np.array([one.searchsorted(_RECALLS) for one in recall])
    return padded[np.arange(len(hits))[:, None], places], recall[:, -1]
