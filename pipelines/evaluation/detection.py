"""Detection: boxes are measured as COCO does, and as they are answered: hits, misses and false alarms."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from contracts.problems.detection import (
    Detections,
    described,
    kept,
    left_of,
    matches,
    objects,
    read_truth,
    surest,
)
from pipelines.evaluation.base import Batch, Evaluation, Measure, MetricNames
from pipelines.evaluation.parts import counts_text, spread_rows
from pipelines.formatting import number

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from contracts.bundle import BundleDocument
    from contracts.problems.detection import DetectionOutput, Truth

_ANSWERED = ("f1", "precision", "recall", "false_alarms")
_SETS = ("map", "map50", "map75", "mar", "map_small", "map_medium", "map_large")


class Detection(Evaluation):
    """Answers are `Detections`; the column ``label`` has the objects as `contracts.problems.detection.write_truth`."""

    problem = "detection"
    usual = "map"
    higher = frozenset({*_SETS, "ap", "ap50", "f1", "precision", "recall"})
    titles: ClassVar = {
        "map": "Mean average precision, COCO",
        "map50": "Mean average precision at IoU 0.5",
        "map75": "Mean average precision at IoU 0.75",
        "mar": "Mean average recall, 100 boxes",
        "map_small": "Average precision, below 32x32 pixels",
        "map_medium": "Average precision, to 96x96 pixels",
        "map_large": "Average precision, above 96x96 pixels",
        "ap:{}": "Average precision of {}",
        "ap50:{}": "Average precision of {} at IoU 0.5",
        "f1": "F1 of what is answered",
        "precision": "Share of answered boxes that are right",
        "recall": "Share of objects that are found",
        "false_alarms": "False alarms of an image",
    }
    plots = ("examples", "precision_recall", "counts", "learning_curve")
    two_kinds = "different sets of objects"

    def metric_names(self, task: Any, config: Any) -> MetricNames:
        """Those of all boxes, and the average precision of each class."""
        return MetricNames(whole=(*_SETS, *_ANSWERED), each=("ap", "ap50"), classes=task.classes)

    def measure_for(
        self,
        frame: pd.DataFrame,
        answers: Any,
        output: DetectionOutput,
        decision: Any,
        only: Collection[str] | None = None,
    ) -> Measure:
        """COCO's measures over all scores, and what the thresholds leave; see `pipelines.evaluation.box_measures`."""
        import numpy as np

        from pipelines.evaluation.box_measures import Matched, coco_measures

        truth = truths_of(frame)
        answered = _answered(truth, answers, output)
        matched = Matched(truth, answers, output.labels, only) if only is None or set(only) - set(_ANSWERED) else None

        def measure(weight: Any = None) -> dict[str, float]:
            if matched is None:
                found = {}
            elif weight is None:
                found = coco_measures(truth, answers, output.labels)
            else:
                found = matched.measure(weight)
            return found | _rates(np.ones(len(answered)) if weight is None else np.asarray(weight), answered)

        return measure

    def associate(self, codes: NDArray[np.int64], label: NDArray[Any], fit: NDArray[np.bool_]) -> None:
        """No column of an image says where its objects are."""

    def counts(self, label: pd.Series[Any]) -> dict[str, int]:
        """Objects of each class."""
        return dict(sorted(Counter(one.label for text in label for one in read_truth(text)).items()))

    def rows_text(self, result: Mapping[str, Any]) -> str:
        """Objects of the first classes, and images without one."""
        empty = result.get("images_without_objects", 0)
        return counts_text(result["labels"]) + (f"; {number(empty)} images without objects" if empty else "")

    def draw(
        self, folder: Path, frame: pd.DataFrame, answers: Any, output: DetectionOutput, decision: Any, result: Any
    ) -> None:
        """Images with hits, misses and false alarms; precision over recall; how many objects are there and found."""
        import numpy as np

        from pipelines.data.file_rows import StoredFile
        from pipelines.evaluation import box_pictures
        from pipelines.evaluation.box_measures import Matched
        from pipelines.evaluation.plots import BLUE, GREY, figure

        truth = truths_of(frame)
        column = next((name for name in frame if isinstance(frame[name].iloc[0], (bytes, StoredFile))), None)
        if column is not None:
            box_pictures.examples(folder / "examples.png", frame[column].tolist(), truth, answers, output)
        matched = Matched(truth, answers, output.labels)
        with figure(folder / "precision_recall.png", "Precision and recall at IoU 0.5", "recall", "precision") as axes:
            for at, name in enumerate(output.labels[:10]):
                curve = matched.curve(at)
                if (curve >= 0).any():
                    axes.plot(np.linspace(0, 1, len(curve)), curve, label=f"{name}, {curve.mean():.3f}")
            axes.set(xlim=(0, 1.01), ylim=(0, 1.03))
            axes.legend(loc="best")
        there = np.array([sum(not item.crowd for item in some) for some in truth])
        found = np.array([len(kept(output, one)) for one in answers])
        most = int(max(there.max(initial=1), found.max(initial=1)))
        with figure(folder / "counts.png", "Objects of an image", "in the image", "answered") as axes:
            axes.plot([0, most], [0, most], color=GREY, linewidth=1)
            axes.scatter(there, found, color=BLUE, alpha=0.4, s=18)

    def curves(self, frame: pd.DataFrame, answers: Any, output: DetectionOutput, decision: Any) -> dict[str, Any]:
        """Images without an object, and the thresholds."""
        empty = sum(not some for some in truths_of(frame))
        return {
            "images_without_objects": empty,
            "thresholds": dict(zip(output.labels, output.thresholds, strict=True)),
        }

    def golden_rows(self, output: DetectionOutput, answers: Any, most: int) -> NDArray[np.int64]:
        """From the image with the fewest objects to that with the most."""
        return spread_rows([len(kept(output, one)) for one in answers], most)

    def baseline(self, output: DetectionOutput, answers: Any) -> dict[str, Any]:
        """``scores``: deciles of the number of objects and of their scores; ``shares`` of the classes."""
        from contracts.baseline import numbers

        found = self.watched(output, None, answers)
        named = Counter(output.labels[one.classes[at]] for one in answers for at in kept(output, one))
        total = max(1, sum(named.values()))
        return {
            "scores": {"objects": numbers(found["answer"]), "score": numbers(found["score"])},
            "shares": {name: round(named[name] / total, 6) for name in output.labels},
        }

    def watched(self, output: DetectionOutput, decision: Any, answers: Any) -> dict[str, NDArray[Any]]:
        """How many objects are answered, the means of their scores and sizes, and the commonest class."""
        import numpy as np

        rows = [described(objects(output, one, kept(output, one))) for one in answers]
        made: dict[str, NDArray[Any]] = {
            name: np.array([np.nan if row[key] is None else row[key] for row in rows], np.float64)
            for name, key in (("answer", "objects"), ("score", "score"), ("side", "side"))
        }
        return made | {"class": np.array([row["class"] for row in rows], dtype=object)}

    def batch(self, output: DetectionOutput, decision: Any) -> Batch:
        """Labels, scores and boxes as lists."""
        return _Batch(output)

    def batch_table(self, summary: Mapping[str, Any]) -> tuple[Sequence[str], Iterable[Sequence[str]]]:
        """Objects of each class."""
        return ("class", "objects"), [(name, number(count)) for name, count in summary["objects"].items()]

    def answers_text(self, document: BundleDocument) -> str:
        """Which classes, and where boxes are."""
        output: Any = document.signature.output
        return (
            f"The objects of an image, {len(output.labels)} classes, at most {output.longest:,}; boxes are left, top, "
            "right and bottom in pixels of the image."
        )

    def decision_text(self, document: BundleDocument) -> str:
        """The threshold of each class."""
        output: Any = document.signature.output
        some = list(zip(output.labels, output.thresholds, strict=True))[:10]
        return (
            "An object is answered from a score of " + ", ".join(f"{least:.2f} ({name})" for name, least in some) + "."
        )

    def explained(
        self, output: DetectionOutput, decision: Any, answers: Any, like: Any, alone: bool
    ) -> NDArray[np.float64]:
        """Log-odds of the surest object, as far as it is still there; of an image without one that of none."""
        import numpy as np

        from contracts.engine import odds_of

        pairs = [(one, surest(output, one), found) for one, found in zip(like, answers, strict=True)]
        return odds_of(np.array([0.0 if at is None else left_of(one, at, found) for one, at, found in pairs]))

    def not_comparable(self, frame: pd.DataFrame, champion: Any) -> str:
        """Classes that the champion does not know."""
        unknown = sorted(set(self.counts(frame["label"])) - set(champion.labels))
        return f"it does not know {unknown[0]}" if unknown else ""

    def save(self, file: Path, answers: Any) -> None:
        """As JSON, an image a line."""
        lines = [
            json.dumps([one.boxes.tolist(), one.scores.tolist(), one.classes.tolist()], separators=(",", ":"))
            for one in answers
        ]
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def read(self, file: Path) -> Any:
        """What `save` wrote."""
        import numpy as np

        lines = file.read_text(encoding="utf-8").split("\n")[:-1]
        found = np.empty(len(lines), dtype=object)
        for at, line in enumerate(lines):
            boxes, scores, classes = json.loads(line)
            found[at] = Detections(
                np.array(boxes, np.float64).reshape(-1, 4), np.array(scores, np.float64), np.array(classes, np.int64)
            )
        return found


class _Batch(Batch):
    def __init__(self, output: DetectionOutput) -> None:
        self.columns = ["labels", "scores", "boxes"]
        self._output, self._counts = output, dict.fromkeys(output.labels, 0)
        self._rows = self._empty = 0

    def add(self, answers: Any) -> list[Any]:
        import pyarrow as pa

        said = [objects(self._output, one, kept(self._output, one)) for one in answers]
        for some in said:
            self._rows, self._empty = self._rows + 1, self._empty + (not some)
            for one in some:
                self._counts[one["label"]] += 1
        return [
            pa.array([[one["label"] for one in some] for some in said], pa.list_(pa.string())),
            pa.array([[one["score"] for one in some] for some in said], pa.list_(pa.float64())),
            pa.array([[one["box"] for one in some] for some in said], pa.list_(pa.list_(pa.float64(), 4))),
        ]

    def document(self) -> dict[str, Any]:
        return {"objects": {**self._counts, "(images without)": self._empty}}


def truths_of(frame: pd.DataFrame) -> list[list[Truth]]:
    """The objects of each row."""
    return [read_truth(text) for text in frame["label"].tolist()]


def _answered(truth: Sequence[Sequence[Truth]], answers: Any, output: DetectionOutput) -> NDArray[np.float64]:
    """Of each image how many answered boxes are right, how many are not, and how many objects there are."""
    import numpy as np

    rows = []
    for some, one in zip(truth, answers, strict=True):
        places = matches(some, output.labels, only_kept(output, one))
        rows.append([(places >= 0).sum(), (places == -1).sum(), sum(not item.crowd for item in some)])
    return np.array(rows, np.float64).reshape(-1, 3)


def only_kept(output: DetectionOutput, one: Detections) -> Detections:
    """The objects that are answered."""
    places = kept(output, one)
    return Detections(one.boxes[places], one.scores[places], one.classes[places])


def _rates(weight: NDArray[np.float64], answered: NDArray[np.float64]) -> dict[str, float]:
    """`_ANSWERED`, at an overlap of 0.5."""
    right, wrong, there = (weight @ answered).tolist()
    nan = float("nan")
    return {
        "f1": 2 * right / (right + wrong + there) if right + wrong + there else nan,
        "precision": right / (right + wrong) if right + wrong else nan,
        "recall": right / there if there else nan,
        "false_alarms": wrong / max(float(weight.sum()), 1e-12),
    }


def best_thresholds(
    truth: Sequence[Sequence[Truth]], answers: Sequence[Detections], labels: Sequence[str], miss: float, alarm: float
) -> tuple[float, ...]:
    """Of each class the threshold with the highest F1 on these images; or, if `miss` and `alarm` are above 0, that with
    the least cost, of which a missed object has `miss` and a false alarm `alarm`.

    It lies in the middle between the scores on its two sides, or above all of them where nothing should be answered;
    0.5 for a class without an object.
    """
    import numpy as np

    scores: list[list[float]] = [[] for _ in labels]
    right: list[list[bool]] = [[] for _ in labels]
    there = Counter(one.label for some in truth for one in some if not one.crowd)
    for some, one in zip(truth, answers, strict=True):
        for place, score, kind in zip(matches(some, labels, one), one.scores, one.classes, strict=True):
            if place != -2:
                scores[kind].append(float(score))
                right[kind].append(bool(place >= 0))
    chosen = []
    for at, name in enumerate(labels):
        order = np.argsort(-np.array(scores[at]), kind="stable")
        if not len(order) or not there[name]:
            chosen.append(0.5)
            continue
        ranked, hits = np.array(scores[at])[order], np.append(0, np.cumsum(np.array(right[at])[order]))
        many = np.arange(len(order) + 1)  # answered; 0: nothing is
        if miss > 0 and alarm > 0:
            worth = -(miss * (there[name] - hits) + alarm * (many - hits))
        else:
            worth = 2 * hits / (many + there[name])
        edges = np.concatenate([[1.0], ranked, [0.0]])  # the threshold for so many lies between two of them
        apart = edges[:-1] > edges[1:]  # boxes of one score are answered together
        best = int(np.where(apart, worth, -np.inf).argmax())
        chosen.append(float(edges[best] + edges[best + 1]) / 2)
    return tuple(chosen)


EVALUATION = Detection()
