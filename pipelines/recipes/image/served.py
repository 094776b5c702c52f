"""The form that a network of images is served in: float32, or int8 where that is as good on the validation images.

Images and configuration are those of `pipelines.recipes.image.base`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.task import problem_of

if TYPE_CHECKING:
    from pipelines.task import TaskConfig

_CALIBRATION, _BATCH = 256, 32  # training images that show the ranges of activations
_COMPARED = 64  # validation images that show how far answers lie apart


def choose_form(out: Path, images: Any, config: TaskConfig) -> dict[str, Any]:
    """Replace the graph in `out` by its int8 form if that costs at most ``gate.int8_tolerance`` of ``gate.primary``.

    Returns:
        ``parameters``, ``choices`` and, of int8, ``tolerance``, see `TaskConfig.train`.
    """
    import numpy as np

    from pipelines.training.quantise import quantise_if_as_good, quantise_static

    step = max(1, len(images.train.pixels) // _CALIBRATION)
    some = images.train.pixels[::step][:_CALIBRATION]
    batches = [
        {images.spec.input: images.spec.normalised(some[at : at + _BATCH])} for at in range(0, len(some), _BATCH)
    ]
    metric = config.gate.primary
    exact = _engine(out, images, config)
    before, check = quantise_if_as_good(
        out,
        _quality(images, metric, config),
        metric=metric,
        largest_drop=config.gate.int8_tolerance,
        form=lambda source, target: quantise_static(source, target, batches),
    )
    measured = {f"valid_{metric}_fp32": before, f"valid_{metric}_int8": check.value}
    found: dict[str, Any] = {"choices": [check.model_dump()], "parameters": {"form": "fp32", **measured}}
    if check.passed:
        # Processors without its instructions round int8 otherwise, by less than int8 itself does.
        shown = {images.column: images.valid.pixels[:_COMPARED]}
        apart = np.abs(exact.predict(shown) - _engine(out, images, config).predict(shown)).max()
        found |= {"tolerance": max(1e-3, float(apart)), "parameters": {"form": "int8", **measured}}
    return found


def _engine(folder: Path, images: Any, config: TaskConfig) -> Any:
    from pipelines.recipes.text.served import engine_of

    return engine_of(folder, images, config, "onnx")


def _quality(images: Any, metric: str, config: TaskConfig) -> Callable[[Path], float]:
    """`metric` of the model in a folder on the validation images; turned round when less of it is better."""
    import pandas as pd

    from contracts.problems import read_output
    from pipelines.evaluation import get_evaluation
    from pipelines.evaluation.gate_metrics import worth
    from pipelines.task import class_output

    evaluation = get_evaluation(problem_of(images.task))
    frame = pd.DataFrame({"label": [images.classes[at] for at in images.valid.labels]})
    output = read_output(class_output(images.task, config, images.classes))

    def measure(folder: Path) -> float:
        answers = _engine(folder, images, config).predict({images.column: images.valid.pixels})
        found = evaluation.measure_for(frame, answers, output, None)(None)
        return worth(evaluation, found, metric)

    return measure
