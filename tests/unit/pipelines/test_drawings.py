"""Images that a model makes: what is measured of them, copies of training images, the task's sample and settings."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.errors import PlatformError
from contracts.problems import read_output
from contracts.problems.image import Drawn
from pipelines.checks.memorisation import CHECK
from pipelines.evaluation import get_evaluation
from pipelines.evaluation import image_measures as by
from pipelines.evaluation.image_reference import reference_of
from pipelines.task import GateConfig
from pipelines.tasks import get_task, recipe_config
from pipelines.tasks.drawings.sketches import NAMES, SIDE, sketches
from tests.drawing_bundle import LABELS, OUTPUT, held_out, pictures

RNG = np.random.default_rng(3)
EVALUATION, SAID = get_evaluation("image"), read_output(OUTPUT)
ROWS = 90


def measured(answers: Any) -> dict[str, float]:
    return EVALUATION.measure_for(held_out(ROWS), answers, SAID, None)(None)


def test_images_as_real_ones_are_told_from_others_by_every_measure() -> None:
    good, bad = measured(pictures(ROWS, 5)[1]), measured(pictures(ROWS, 5, shift=40.0)[1])
    assert abs(good["kid"]) < 0.05 < bad["kid"]
    assert good["c2st"] < 0.65 < 0.9 < bad["c2st"]
    assert good["precision"] > 0.8 > bad["precision"]
    assert good["recall"] > 0.8 > bad["recall"]
    assert good["label_accuracy"] == 1.0
    assert abs(good["c2st_real"] - 0.5) < 0.15
    assert 0.5 < good["nearest_ratio"] < 2


def test_too_little_variety_is_seen_by_recall_alone() -> None:
    found = pictures(ROWS, 5)[1]
    first = {one.label: one for one in found[:3]}
    found[:] = [first[one.label] for one in found]
    told = measured(found)
    assert told["precision"] > 0.9
    assert told["recall"] < 0.3


def test_copies_of_training_images_are_counted_and_refused() -> None:
    frame = held_out(ROWS)
    train = reference_of(frame).train
    answers = pictures(ROWS, 5)[1]
    honest = EVALUATION.curves(frame, answers, SAID, None)
    assert honest["memorisation"]["copies"] == 0
    for at in range(0, 30, 3):
        answers[at] = Drawn(train[at], "dark")
    copied = EVALUATION.curves(frame, answers, SAID, None)
    assert copied["memorisation"]["copies"] == 10
    assert measured(answers)["copied"] == pytest.approx(10 / ROWS)
    for document, limit, passed in ((honest, 0.0, True), (copied, 0.0, False), (copied, 0.2, True)):
        candidate: Any = SimpleNamespace(evaluation=document, settings=GateConfig(max_copied=limit))
        [check] = CHECK.find(candidate).checks
        assert (check.passed, check.limit, check.metric) == (passed, limit, "copied")
    assert not CHECK.find(SimpleNamespace(evaluation={}, settings=GateConfig())).checks  # type: ignore[arg-type]


def test_rows_beside_no_reference_say_what_is_missing() -> None:
    frame = held_out(4)
    frame.attrs.clear()
    with pytest.raises(PlatformError, match="nothing to be compared with"):
        EVALUATION.measure_for(frame, pictures(4, 1)[1], SAID, None)


def test_kid_is_zero_of_the_same_distribution_and_few_rows_say_nothing() -> None:
    one, other = RNG.normal(size=(200, 6)), RNG.normal(size=(200, 6))
    assert abs(by.kid(by.kernel(one, other), np.ones(200))) < 0.05
    assert by.kid(by.kernel(one, other + 1), np.ones(200)) > 0.5
    assert np.isnan(by.kid(by.kernel(one[:1], other[:1]), np.ones(1)))
    assert np.isnan(by.told_apart(one[:5], other[:5])[0]).all()
    assert np.isnan(by.covered(one[:3], other[:3])).all()


def test_precision_is_that_of_a_slow_count() -> None:
    real, made = RNG.normal(size=(30, 3)), RNG.normal(size=(25, 3)) + 1
    radius = [sorted(np.linalg.norm(real - one, axis=1))[3] for one in real]
    slow = [any(np.linalg.norm(one - other) <= r for other, r in zip(real, radius, strict=True)) for one in made]
    np.testing.assert_array_equal(by.covered(made, real), np.array(slow, float))


def test_the_sample_is_the_same_for_the_same_seed_and_has_every_class() -> None:
    first, again, other = (list(sketches(seed, 2)) for seed in (1, 1, 2))
    assert first == again != other
    assert [label for _, _, label in first] == [*NAMES, *NAMES]
    assert len({content for _, content, _ in sketches(1, 20)}) == 20 * len(NAMES)


def test_the_split_asks_for_each_image_of_the_test_with_a_seed_of_its_own() -> None:
    task = get_task("drawings")
    config = recipe_config(task)
    frame = pd.concat([table.to_pandas() for table in _sample(task, config)])
    parts = task.split(frame, config)
    test = parts["test"]
    assert (test["prompt"] == test["label"]).all()
    assert test["seed"].nunique() == len(test)
    assert test["steps"].isna().all()  # each model takes its own
    assert set(test["label"]) == set(NAMES)
    assert not set(test["row_key"]) & set(parts["train"]["row_key"])


def _sample(task: Any, config: Any) -> Any:
    from pipelines.data.image_files import sample_table

    return [sample_table(islice(task.sample(config), 400), task)]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("sampling.steps", 0, "greater than or equal to 1"),
        ("sampling.guidance", 0.5, "greater than or equal to 1"),
        ("image.width", 30, "expected a multiple of 4, such as 32"),
        ("model.heads", 3, "does not divide"),
        ("model.widths", [10], "multiple of 8"),
        ("training.class_weights", True, "no class weights"),
        ("training.dropped", 1.0, "less than 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(key: str, value: Any, said: str) -> None:
    with pytest.raises(PlatformError, match=r"invalid configuration") as refused:
        recipe_config(get_task("drawings"), None, {key: value})
    assert said in refused.value.detail


def test_sheets_show_every_class_and_neighbours(tmp_path: Path) -> None:
    from PIL import Image

    answers = pictures(ROWS, 5)[1]
    EVALUATION.draw(tmp_path, held_out(ROWS), answers, SAID, None, {})
    for name in ("samples", "neighbours"):
        sheet = np.asarray(Image.open(tmp_path / f"{name}.png"))
        assert sheet.shape[0] > len(LABELS) * 56
        assert sheet.std() > SIDE
