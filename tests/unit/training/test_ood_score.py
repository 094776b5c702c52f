"""How far an image is from those that were learned: the score in the graph, what it is measured by, and its limit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest

from contracts.images import ImageSpec
from contracts.out_of_distribution import OOD
from pipelines.evaluation import out_of_distribution
from pipelines.evaluation.strange_images import KINDS, strange
from pipelines.gate_limits import ExplanationLimits
from pipelines.recipes.image.base import AbstainConfig
from pipelines.task import GateConfig, Threshold
from pipelines.tasks import get_task, recipe_config
from pipelines.training.ood_score import add_ood_score
from tests.image_bundle import image_source, picture

SPEC = ImageSpec(width=8, height=8, softmax=True)


def grays(rows: int, seed: int) -> tuple[Any, Any]:
    """Gray images, dark and bright in turn, and their class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    shades = rng.integers(20, 100, rows) + 130 * labels
    return np.broadcast_to(shades[:, None, None, None], (rows, 8, 8, 3)).astype(np.uint8), labels


@pytest.mark.parametrize("vector", [True, False])
@pytest.mark.parametrize("refused", [0.05, 0.2])
def test_the_limit_is_where_as_many_validation_images_are_beyond_as_asked(
    tmp_path: Path, vector: bool, refused: float
) -> None:
    image_source(tmp_path, softmax=True, vector=vector)
    file, held = tmp_path / "model" / "model.onnx", grays(200, 2)[0]
    before = ort.InferenceSession(str(file)).run(["probabilities"], {"pixels": SPEC.normalised(held)})[0]
    add_ood_score(file, SPEC, *grays(400, 1), held, refused)
    session = ort.InferenceSession(str(file))
    after, score = session.run(["probabilities", OOD], {"pixels": SPEC.normalised(held)})
    assert np.array_equal(before, after)
    assert score.shape == (200, 1)
    assert float((score > 1.0001).mean()) <= refused
    assert float((score > 0.99).mean()) >= refused / 2
    assert np.median(score) == pytest.approx(0, abs=0.01)
    red = np.zeros((1, 8, 8, 3), np.uint8)
    red[..., 0] = 255
    [[strange_one]] = session.run([OOD], {"pixels": SPEC.normalised(red)})[0]
    assert (strange_one > 1) == vector, "as bright as others, and of no color that was learned"


def test_strange_images_have_the_sizes_of_real_ones_and_are_the_same_each_time() -> None:
    frame = pd.DataFrame({"image": [picture(9, size=12), picture((200, 10, 10), size=9)]})
    found, again = dict(strange(frame, "image")), dict(strange(frame, "image"))
    assert found == again
    assert list(found) == list(KINDS)
    assert all(len(files) == len(set(files)) == 2 for files in found.values())


class Known:
    """Its score of an image is how far its first byte is from 'b'."""

    has_ood = True

    def predict_ood(self, columns: Any) -> tuple[Any, Any]:
        [files] = columns.values()
        return None, np.array([{b"B": 5.0, b"x": 0.2}.get(file[:1], 9.0) for file in files])


def test_it_is_measured_beside_made_corrupted_and_other_images(tmp_path: Path) -> None:
    (tmp_path / "other" / "thing").mkdir(parents=True)
    (tmp_path / "other" / "thing" / "a.png").write_bytes(picture(7))
    config = recipe_config(get_task("images"), None, {"abstain.other": str(tmp_path / "other")})
    pictures = [picture(shade) for shade in (1, 60, 240)]
    frame = pd.DataFrame({"image": pictures, "label": ["stop"] * 3})
    inputs = get_task("images").inputs(config)

    class Some(Known):
        def predict_ood(self, columns: Any) -> tuple[Any, Any]:
            scores = super().predict_ood(columns)[1]
            usual = [0.5, 0.5, 7.0] if list(columns["image"]) == pictures else scores
            return None, np.array(usual)

    decided = [("stop", 1.0), ("left", 1.0), ("left", 1.0)]
    some: Any = Some()
    metrics, told, scores = out_of_distribution.measure(some, get_task("images"), config, frame, inputs, decided)
    # A made image is a BMP, of score 5: beyond two of the three test images.
    assert metrics == pytest.approx({
        "ood_auroc": 2 / 3, "ood_auroc_other": 1.0, "false_refusals": 1 / 3, "accuracy_answered": 1 / 2,
    })  # fmt: skip
    assert scores is not None
    assert scores.tolist() == [0.5, 0.5, 7.0]
    kinds = {(one["of"], one["kind"]): one for one in told["kinds"]}
    assert len([of for of, _ in kinds if of == "corrupted"]) == 15
    assert kinds["made", "noise"]["refused"] == 1.0
    assert kinds["other", "other images"]["rows"] == 1


def test_a_model_that_cannot_abstain_is_not_measured() -> None:
    config = recipe_config(get_task("images"), None, {})
    frame = pd.DataFrame({"image": [picture(1)], "label": ["stop"]})
    cases: list[tuple[Any, Any]] = [(SimpleNamespace(), config), (Known(), recipe_config(get_task("images"), None, {
        "abstain.false_refusals": 0.0, "gate.thresholds": [],
    }))]  # fmt: skip
    for engine, asked in cases:
        assert out_of_distribution.measure(engine, get_task("images"), asked, frame, [], [])[:2] == ({}, {})


def test_a_gate_may_ask_for_it_only_of_models_that_abstain() -> None:
    from pipelines.evaluation.classification import EVALUATION

    task = get_task("images")
    assert EVALUATION.metric_names(task, recipe_config(task, None, {})).has("ood_auroc")
    silent = SimpleNamespace(abstain=AbstainConfig(false_refusals=0.0), gate=None)
    assert not EVALUATION.metric_names(task, silent).has("ood_auroc")
    assert GateConfig(thresholds=(Threshold(metric="ood_auroc", minimum=0.8),), explanations=ExplanationLimits())
