"""Whether a model of images says of strange ones that it cannot know them, and how often it says so of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contracts.out_of_distribution import LIMIT, OOD, abstaining

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from contracts.bundle import Input
    from contracts.engine import Engine

METRICS = ("ood_auroc", "ood_auroc_other", "false_refusals", "accuracy_answered")
HIGHER = frozenset({"ood_auroc", "ood_auroc_other", "accuracy_answered"})  # of which more is better
_BATCH = 64


def abstains(config: Any) -> bool:
    """Whether a recipe's models abstain, so that a gate may ask how well."""
    abstain = getattr(config, "abstain", None)
    return abstain is not None and abstain.false_refusals > 0


def measure(
    engine: Engine, task: Any, config: Any, frame: pd.DataFrame, inputs: Sequence[Input], decided: Sequence[Any]
) -> tuple[dict[str, float], dict[str, Any], NDArray[np.float64] | None]:
    """Metrics, ``ood`` of evaluation.json, and the score of each test row; nothing of an engine that cannot abstain.

    ``ood_auroc`` is the mean over `strange` images, ``ood_auroc_other`` of the images of ``abstain.other``: how often
    one of them is stranger than a test image. ``false_refusals`` is the share of the test images that are refused.

    Args:
        decided: what the model says of each row, see `Problem.decide`.
    """
    import numpy as np

    able = abstaining(engine)
    if able is None or not abstains(config):
        return {}, {}, None
    column = next(item.name for item in inputs if item.dtype == "bytes")

    def scores(files: Sequence[Any]) -> NDArray[np.float64]:
        given = np.empty(len(files), dtype=object)
        given[:] = list(files)
        parts = [able.predict_ood({column: given[at : at + _BATCH]})[1] for at in range(0, len(given), _BATCH)]
        return np.concatenate(parts)

    usual = scores(frame[column].tolist())
    kinds: list[dict[str, Any]] = []
    for of, kind, files in _asked(task, config, frame, column):
        found = scores(files)
        kinds.append({
            "of": of, "kind": kind, "rows": len(files), "auroc": _auroc(usual, found),
            "refused": float((found > LIMIT).mean()),
        })  # fmt: skip
    metrics = {"ood_auroc": float(np.mean([one["auroc"] for one in kinds if one["of"] == "made"]))}
    if others := [one["auroc"] for one in kinds if one["of"] == "other"]:
        metrics["ood_auroc_other"] = others[0]
    metrics["false_refusals"] = float((usual > LIMIT).mean())
    if (answered := usual <= LIMIT).any():
        right = np.array([one[0] for one in decided], dtype=object) == frame["label"].to_numpy(object)
        metrics["accuracy_answered"] = float(right[answered].mean())
    return metrics, {"rows": len(frame), "kinds": kinds}, usual


def _asked(task: Any, config: Any, frame: pd.DataFrame, column: str) -> Iterator[tuple[str, str, list[bytes]]]:
    from pipelines.evaluation.strange_images import strange

    for kind, files in strange(frame, column):
        yield "made", kind, files
    if config.abstain.other:
        yield "other", "other images", _others(task, config, column)
    for name, rows in task.variants(frame, config):
        kind, _, strength = name.removeprefix("corrupted:").rpartition(" ")
        if strength == "3":
            yield "corrupted", kind, rows[column].tolist()


def _others(task: Any, config: Any, column: str) -> list[bytes]:
    """The images of a source of something else, evenly from all, at most as many as are made of each kind."""
    import numpy as np

    from pipelines.data.image_files import batches
    from pipelines.data.origins import source_here
    from pipelines.evaluation.strange_images import ROWS

    found: list[bytes] = []
    with source_here(config.abstain.other, "evaluate") as here:
        for table in batches(here, column, config.data):
            found += table.column(column).to_pylist()
    return [found[at] for at in np.unique(np.linspace(0, len(found) - 1, min(len(found), ROWS)).astype(int))]


def _auroc(usual: NDArray[np.float64], strange_ones: NDArray[np.float64]) -> float:
    """How often a strange image has the higher score, ties as half."""
    import numpy as np

    order = np.sort(usual)
    below = np.searchsorted(order, strange_ones, "left") + np.searchsorted(order, strange_ones, "right")
    return float(below.mean() / (2 * len(order)))


def watched(scores: NDArray[np.float64] | None) -> Mapping[str, NDArray[np.float64]]:
    """What monitors watch beside the answers of the problem."""
    return {} if scores is None else {OOD: scores}
