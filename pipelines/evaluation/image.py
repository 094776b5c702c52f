"""Image: generated images beside as many real ones of the same classes that no model has learned from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from contracts.problems.image import Drawn
from contracts.problems.image import described as traits
from pipelines.evaluation.base import Batch, Measure, MetricNames
from pipelines.evaluation.parts import ClassLabels, spread_rows
from pipelines.formatting import number

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from contracts.bundle import BundleDocument, Input
    from contracts.problems.image import ImageOutput

MEMORY = "memorisation"  # of evaluation.json
_OF_ROWS = ("label_accuracy", "precision", "recall", "c2st", "c2st_pixels", "copied")
_WATCHED = {"answer": "brightness", "contrast": "contrast", "sharpness": "sharpness"}  # by their names as answers
_ANCHORS = ("c2st_real", "kid_real", "nearest_ratio")


class Image(ClassLabels):
    """Answers are `Drawn`; the rows have the real images, and the class that is asked for as their label."""

    problem = "image"
    usual = "kid"
    higher = frozenset({"label_accuracy", "precision", "recall", "nearest_ratio"})
    titles: ClassVar = {
        "label_accuracy": "Images that show what was asked for",
        "kid": "KID on the reference network; 0: as real",
        "kid_real": "KID of other real images, for comparison",
        "precision": "Precision: images that could be real",
        "recall": "Recall: real images that could be generated",
        "c2st": "Told from real ones, by features; 0.5: not at all",
        "c2st_pixels": "Told from real ones, by the nearest pixels",
        "c2st_real": "Real images told from real ones, by features",
        "copied": "Images that are copies of training images",
        "nearest_ratio": "Distance to training images, by that of real ones",
    }
    plots = ("samples", "neighbours", "learning_curve")
    two_kinds = "different classes"

    def metric_names(self, task: Any, config: Any) -> MetricNames:
        """All of them, of every task."""
        return MetricNames(whole=("kid", *_OF_ROWS, *_ANCHORS))

    def measure_for(
        self,
        frame: pd.DataFrame,
        answers: Any,
        output: ImageOutput,
        decision: Any,
        only: Collection[str] | None = None,
    ) -> Measure:
        """See `pipelines.evaluation.image_measures`; the anchors are of all rows, whatever their weights."""
        import numpy as np

        from pipelines.evaluation import image_measures as by
        from pipelines.evaluation.image_reference import reference_of

        def wanted(*names: str) -> bool:
            return only is None or any(name in only for name in names)

        reference = reference_of(frame)
        real, made = reference.real(frame), stacked(answers)
        there, (found, said) = reference.judged(real)[0], reference.judged(made)
        rows: dict[str, NDArray[np.float64]] = {}
        if wanted("label_accuracy"):
            rows["label_accuracy"] = (np.array(said) == frame["label"].to_numpy(object)).astype(np.float64)
        if wanted("precision", "recall"):
            rows |= {"precision": by.covered(found, there), "recall": by.covered(there, found)}
        if wanted("c2st"):
            rows["c2st"] = np.mean(by.told_apart(there, found), axis=0)
        if wanted("c2st_pixels"):
            rows["c2st_pixels"] = np.mean(by.neighbours_tell(real, made), axis=0)
        anchors: dict[str, float] = {}
        if wanted("copied", *_ANCHORS):
            held, apart = reference.nearest(real)[0], reference.nearest(made)[0]
            rows["copied"] = (apart < by.copy_limit(held)).astype(np.float64)
            anchors["nearest_ratio"] = float(np.median(apart) / max(float(np.median(held)), 1e-9))
        if wanted("c2st_real", "kid_real"):
            others = reference.judged(reference.others(len(real)))[0]
            anchors["kid_real"] = by.kid(by.kernel(there, others), np.ones(len(there)))
            anchors["c2st_real"] = float(np.mean(by.told_apart(there, others)))
        alike = by.kernel(there, found) if wanted("kid") else None

        def measure(weight: Any = None) -> dict[str, float]:
            w = np.ones(len(real)) if weight is None else np.asarray(weight, np.float64)
            total = max(float(w.sum()), 1e-12)
            told = {name: float(w @ values) / total for name, values in rows.items()}
            return told | ({"kid": by.kid(alike, w)} if alike is not None else {}) | anchors

        return measure

    def interval_metrics(self, output: ImageOutput, primary: str) -> Collection[str]:
        """Those that rows have; an anchor has none."""
        return {"kid", *_OF_ROWS}

    def associate(self, codes: NDArray[Any], label: NDArray[Any], fit: NDArray[Any]) -> None:
        """What is asked for is the label: a column that tells it gives nothing away."""

    def described(self, inputs: Sequence[Input]) -> Sequence[Input]:
        """None: how people ask is no row of the test; which classes they ask for is watched as the answer."""
        return ()

    def curves(self, frame: pd.DataFrame, answers: Any, output: ImageOutput, decision: Any) -> dict[str, Any]:
        """Which network the features are of, and how near images are to training images."""
        import numpy as np

        from pipelines.evaluation.image_measures import copy_limit
        from pipelines.evaluation.image_reference import reference_of

        reference = reference_of(frame)
        held, (apart, _) = reference.nearest(reference.real(frame))[0], reference.nearest(stacked(answers))
        limit = copy_limit(held)
        memory = {
            "limit": limit,
            "copies": int((apart < limit).sum()),
            "rows": len(apart),
            "nearest": float(np.median(apart)),
            "nearest_of_real": float(np.median(held)),
        }
        return {"reference": dict(reference.about), MEMORY: memory}

    def draw(
        self, folder: Path, frame: pd.DataFrame, answers: Any, output: ImageOutput, decision: Any, result: Any
    ) -> None:
        """Images of each class, and the nearest training images beside some."""
        from pipelines.evaluation import image_sheets
        from pipelines.evaluation.image_reference import reference_of

        image_sheets.samples(folder / "samples.png", answers, output.labels)
        image_sheets.neighbours(folder / "neighbours.png", answers, output.labels, reference_of(frame))

    def golden_rows(self, output: ImageOutput, answers: Any, most: int) -> NDArray[np.int64]:
        """From the first class to the last."""
        return spread_rows([output.labels.index(one.label) for one in answers], most)

    def baseline(self, output: ImageOutput, answers: Any) -> dict[str, Any]:
        """``scores``: deciles of brightness, contrast and sharpness; ``shares`` of the classes."""
        from contracts.baseline import numbers

        found = self.watched(output, None, answers)
        counts = Counter(one.label for one in answers)
        return {
            "scores": {key: numbers(found[name]) for name, key in _WATCHED.items()},
            "shares": {name: round(counts[name] / max(1, len(answers)), 6) for name in output.labels},
        }

    def watched(self, output: ImageOutput, decision: Any, answers: Any) -> dict[str, NDArray[Any]]:
        """Brightness, contrast, sharpness and class of each image."""
        import numpy as np

        told = [traits(one) for one in answers]
        found = {name: np.array([one[key] for one in told], np.float64) for name, key in _WATCHED.items()}
        return found | {"class": np.array([one["class"] for one in told], dtype=object)}

    def batch(self, output: ImageOutput, decision: Any) -> Batch:
        """The class, and a PNG file with its mark."""
        return _Batch(output)

    def batch_table(self, summary: Mapping[str, Any]) -> tuple[Sequence[str], Iterable[Sequence[str]]]:
        """Images of each class."""
        return ("class", "images"), [(name, number(count)) for name, count in summary["images"].items()]

    def answers_text(self, document: BundleDocument) -> str:
        """How large, and of which classes."""
        output: Any = document.signature.output
        of = "any text" if output.any_text else f"one of {len(output.labels)} classes"
        return f"An image of {output.width}x{output.height} pixels, of {of}."

    def not_comparable(self, frame: pd.DataFrame, champion: Any) -> str:
        """Classes that the champion does not know."""
        unknown = sorted(set(frame["label"]) - set(champion.labels))
        return f"it does not know {unknown[0]}" if unknown else ""

    def save(self, file: Path, answers: Any) -> None:
        """The pixels as one array, and the rest as JSON lines."""
        import numpy as np

        told = "\n".join(json.dumps({"label": one.label, "made": dict(one.made)}) for one in answers)
        with file.open("wb") as stream:
            np.save(stream, stacked(answers))
            np.save(stream, np.frombuffer(told.encode(), np.uint8))

    def read(self, file: Path) -> Any:
        """What `save` wrote."""
        import numpy as np

        with file.open("rb") as stream:
            pixels, told = (np.load(stream, allow_pickle=False) for _ in range(2))
        found = np.empty(len(pixels), dtype=object)
        for at, line in enumerate(told.tobytes().decode().split("\n")):
            found[at] = Drawn(pixels[at], **json.loads(line))
        return found


class _Batch(Batch):
    def __init__(self, output: ImageOutput) -> None:
        self.columns = ["label", "png"]
        self._counts = dict.fromkeys(output.kinds, 0)

    def add(self, answers: Any) -> list[Any]:
        import pyarrow as pa

        for one in answers:
            self._counts[one.label] += 1
        return [pa.array([one.label for one in answers], pa.string()), pa.array([one.png() for one in answers])]

    def document(self) -> dict[str, Any]:
        return {"images": dict(self._counts)}


def stacked(answers: Any) -> NDArray[np.uint8]:
    """The pixels of answers, shape (rows, height, width, channels)."""
    import numpy as np

    return np.stack([one.pixels for one in answers])


EVALUATION = Image()
