"""Detection: objects are counted by their class, and observed by how many an image has."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contracts.metric_names import OBJECT_BUCKETS, OBJECTS
from contracts.problems.detection import Detections, Object, Truth, described, matches, read_truth, truths
from services.problems.base import Count, Distribution, Series, Serving

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contracts.bundle import Golden
    from contracts.problems.detection import DetectionOutput

NOTHING = "(nothing)"
_SCORE_PLACES, _BOX_PLACES = 4, 1


class DetectionServing(Serving):
    """See `services.problems.base.Serving`; a decision is the list of objects, a label that of the true ones."""

    def labels(self, output: DetectionOutput) -> Sequence[str]:
        """The classes, each object of which counts, and an image without an object."""
        return (*output.labels, NOTHING)

    def distribution(self, output: DetectionOutput, golden: Sequence[Golden]) -> Distribution:
        """Of the number of objects."""
        return Distribution(name=OBJECTS, text="Objects that were found in an image.", edges=OBJECT_BUCKETS)

    def count(
        self, answers: Any, decided: Sequence[list[Object]], labels: Mapping[str, Count], observed: Series
    ) -> None:
        """Each object, and how many an image has."""
        for found in decided:
            observed.observe(len(found))
            for name in [one["label"] for one in found] or [NOTHING]:
                labels[name].inc()

    def record(self, answers: Any, decided: Sequence[list[Object]], row: int) -> dict[str, Any]:
        """Number, mean score and size, commonest class; and the objects, which labels are compared with later."""
        found = [
            {
                "label": one["label"],
                "score": round(one["score"], _SCORE_PLACES),
                "box": [round(side, _BOX_PLACES) for side in one["box"]],
            }
            for one in decided[row]
        ]
        return {**described(decided[row]), "found": found}

    def label_schema(self, output: DetectionOutput) -> dict[str, Any]:
        """The objects that are in the image."""
        box = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
        properties = {"label": {"enum": list(output.labels)}, "box": box, "crowd": {"type": "boolean"}}
        one = {"type": "object", "additionalProperties": False, "required": ["label", "box"], "properties": properties}
        return {"type": "array", "items": one, "maxItems": 10 * output.longest}

    def label(self, output: DetectionOutput, value: Any) -> list[dict[str, Any]]:
        """A list of objects."""
        if type(value) is list and len(value) > 10 * output.longest:
            raise ValueError(f"expected at most {10 * output.longest} objects")
        found = truths(value)
        for at, one in enumerate(found):
            if one.label not in output.labels:
                raise ValueError(f"the class of object {at} is none of {', '.join(output.labels[:20])}")
        crowd = [{"crowd": True} if one.crowd else {} for one in found]
        return [{"label": one.label, "box": list(one.box), **more} for one, more in zip(found, crowd, strict=True)]

    def label_of_text(self, output: DetectionOutput, text: str) -> list[dict[str, Any]]:
        """A list of objects as JSON."""
        read_truth(text)
        return self.label(output, json.loads(text))

    def is_right(self, recorded: Mapping[str, Any], label: Any, metrics: Mapping[str, float]) -> bool:
        """Whether every object was found, and nothing else."""
        right, wrong, there = _told([recorded], [label])[0]
        return bool(right == there and not wrong)

    def parameters(self, output: DetectionOutput) -> dict[str, Any]:
        """Classes and thresholds."""
        return output.model_dump(mode="json")

    def summary(self, output: DetectionOutput) -> str:
        """Objects of the classes."""
        return f"the objects of an image, of {len(output.labels)} classes"

    def answers(self, output: DetectionOutput, documents: Sequence[Mapping[str, Any]]) -> NDArray[np.object_]:
        """What is answered; nothing is known of the rest."""
        import numpy as np

        found = np.empty(len(documents), dtype=object)
        for row, one in enumerate(documents):
            found[row] = _detections(one["objects"], output.labels)
        return found

    def measure(
        self, output: DetectionOutput, decision: Any, answers: Sequence[Mapping[str, Any]], labels: Sequence[Any]
    ) -> Callable[[Any], dict[str, float]]:
        """F1, precision and recall of what was answered, at an overlap of 0.5; false alarms of an image."""
        import numpy as np

        told = _told(answers, labels)

        def measure(weight: Any) -> dict[str, float]:
            w = np.ones(len(told)) if weight is None else np.asarray(weight)
            right, wrong, there = (w @ told).tolist()
            found = {"false_alarms": wrong / max(float(w.sum()), 1e-12)}
            if right + wrong + there:
                found["f1"] = 2 * right / (right + wrong + there)
            if right + wrong:
                found["precision"] = right / (right + wrong)
            if there:
                found["recall"] = right / there
            return found

        return measure

    def watched(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """How many objects, the means of their scores and sizes, the commonest class."""
        if "objects" not in record:
            return {}
        return {"answer": record["objects"], **{name: record.get(name) for name in ("score", "side", "class")}}


def _detections(found: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Detections:
    import numpy as np

    return Detections(
        np.array([one["box"] for one in found], np.float64).reshape(-1, 4),
        np.array([one["score"] for one in found], np.float64),
        np.array([labels.index(one["label"]) for one in found], np.int64),
    )


def _told(answers: Sequence[Mapping[str, Any]], labels: Sequence[Any]) -> NDArray[np.float64]:
    """Of each image how many objects are right, how many are not, and how many there are, shape (rows, 3)."""
    import numpy as np

    rows = []
    for one, label in zip(answers, labels, strict=True):
        truth: list[Truth] = truths(label)
        names = sorted({item["label"] for item in one["found"]} | {item.label for item in truth})
        places = matches(truth, names, _detections(one["found"], names))
        rows.append([(places >= 0).sum(), (places == -1).sum(), sum(not item.crowd for item in truth)])
    return np.array(rows, np.float64).reshape(-1, 3)


SERVING = DetectionServing()
