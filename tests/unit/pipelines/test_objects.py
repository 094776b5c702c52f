"""Boxes are measured as faster-coco-eval does, thresholds are chosen by F1 or cost, pictures show what was found."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from contracts.errors import PlatformError
from contracts.problems import read_output
from contracts.problems.detection import Detections, Truth, matches, read_truth, write_truth
from pipelines.evaluation import get_evaluation
from pipelines.evaluation.box_measures import Matched, coco_measures
from pipelines.evaluation.box_pictures import ALARM, HIT, MISS, drawn
from pipelines.evaluation.detection import best_thresholds
from pipelines.tasks import get_task, recipe_config
from pipelines.tasks.objects.parts import HIGH, NAMES, WIDE, trays
from tests.image_bundle import picture

EVALUATION = get_evaluation("detection")
LABELS = ("a", "b", "c")


def scenes(seed: int, images: int) -> tuple[list[list[Truth]], list[Detections]]:
    """Objects of every size, some of them crowds, and boxes near them, twice, or anywhere, some scores tied."""
    rng = np.random.default_rng(seed)

    def boxes(count: int) -> Any:
        corner = rng.uniform(0, 200, (count, 2))
        return np.concatenate([corner, corner + rng.uniform(4, 160, (count, 2))], axis=1)

    truth, found = [], []
    for _ in range(images):
        there = boxes(int(rng.integers(0, 6)))
        kinds = rng.integers(0, 3, len(there))
        truth.append(
            [
                Truth(LABELS[k], tuple(box), bool(rng.random() < 0.15))
                for k, box in zip(kinds, there.tolist(), strict=True)
            ]
        )
        near = there + rng.normal(0, 3, there.shape)
        some = np.concatenate([near, near[:2] + 1, boxes(int(rng.integers(0, 4)))])
        some[:, 2:] = np.maximum(some[:, 2:], some[:, :2] + 1)
        said = np.concatenate([kinds, kinds[:2], rng.integers(0, 3, len(some) - len(kinds) - len(kinds[:2]))])
        scores = np.round(rng.random(len(some)) * 0.95, 1)
        order = np.argsort(-scores, kind="stable")
        found.append(Detections(some[order], scores[order], said[order].astype(np.int64)))
    return truth, found


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_measures_are_those_of_faster_coco_eval(seed: int, images: int) -> None:
    truth, found = scenes(seed, images)
    expected = coco_measures(truth, found, LABELS)
    assert Matched(truth, found, LABELS).measure() == pytest.approx(expected, nan_ok=True, abs=1e-12)
    assert Matched(truth, found, LABELS, ["map"]).measure() == pytest.approx({"map": expected["map"]}, nan_ok=True)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_a_row_that_counts_twice_is_as_two_rows(seed: int) -> None:
    truth, found = scenes(seed, 6)
    # Equal scores of different boxes would be told apart by the order of rows, which copies change.
    places = np.split(np.arange(sum(len(one.scores) for one in found)), np.cumsum([len(one.scores) for one in found]))
    found = [
        Detections(one.boxes, one.scores - at * 1e-6, one.classes) for one, at in zip(found, places[:-1], strict=True)
    ]
    weight = np.random.default_rng(seed).integers(0, 3, 6)
    rows = np.repeat(np.arange(6), weight)
    repeated = coco_measures([truth[at] for at in rows], [found[at] for at in rows], LABELS)
    weighed = Matched(truth, found, LABELS).measure(weight.astype(float))
    assert weighed == pytest.approx(repeated, nan_ok=True, abs=1e-9)


def test_perfect_boxes_are_worth_one_and_none_nothing() -> None:
    truth = [[Truth("a", (0, 0, 50, 50)), Truth("b", (10, 10, 20, 20))], []]
    right = [
        Detections(np.array([one.box for one in some]).reshape(-1, 4), np.ones(len(some)), np.arange(len(some)))
        for some in truth
    ]
    nothing = [Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))] * 2
    assert coco_measures(truth, right, ("a", "b"))["map"] == pytest.approx(1.0)
    for measured in (coco_measures(truth, nothing, ("a", "b")), Matched(truth, nothing, ("a", "b")).measure()):
        assert measured["map"] == 0
        assert np.isnan(measured["map_large"])


def output(*thresholds: float) -> Any:
    return read_output({"problem": "detection", "labels": LABELS[: len(thresholds)], "thresholds": thresholds})


def as_answers(found: Any) -> Any:
    made = np.empty(len(found), object)
    for at, one in enumerate(found):
        made[at] = one
    return made


def test_what_is_answered_is_counted() -> None:
    truth = [[Truth("a", (0, 0, 10, 10)), Truth("b", (20, 20, 40, 40))], []]
    boxes = np.array([[0, 0, 10, 10], [50, 50, 60, 60], [21, 21, 41, 41]], float)
    said = [
        Detections(boxes, np.array([0.9, 0.8, 0.1]), np.array([0, 0, 1])),
        Detections(boxes[:1], np.array([0.2]), np.array([0])),
    ]
    frame = pd.DataFrame({"label": [write_truth(some) for some in truth]})
    measure = EVALUATION.measure_for(frame, as_answers(said), output(0.5, 0.5), None)
    found = measure(None)
    assert (found["precision"], found["recall"], found["f1"], found["false_alarms"]) == (0.5, 0.5, 0.5, 0.5)
    assert measure(np.array([0.0, 1.0]))["false_alarms"] == 0
    assert EVALUATION.measure_for(frame, as_answers(said), output(0.5, 0.05), None)(None)["recall"] == 1
    assert "it does not know b" in EVALUATION.not_comparable(frame, output(0.5))
    assert EVALUATION.counts(frame["label"]) == {"a": 1, "b": 1}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 10), st.floats(0.1, 10))
def test_no_other_threshold_is_better(seed: int, miss: float, alarm: float) -> None:
    truth, found = scenes(seed, 5)

    placed = [matches(some, LABELS, one) for some, one in zip(truth, found, strict=True)]

    def counted(at: int, threshold: float) -> tuple[int, int, int]:
        counts = [(one.classes == at) & (one.scores >= threshold) for one in found]
        right, wrong = (
            sum(int(test(places[some]).sum()) for places, some in zip(placed, counts, strict=True))
            for test in (lambda places: places >= 0, lambda places: places == -1)
        )
        return right, wrong, sum(one.label == LABELS[at] and not one.crowd for some in truth for one in some)

    def cost(at: int, threshold: float) -> float:
        right, wrong, there = counted(at, threshold)
        return miss * (there - right) + alarm * wrong

    def f1(at: int, threshold: float) -> float:
        right, wrong, there = counted(at, threshold)
        return 2 * right / max(1, right + wrong + there)

    by_f1, by_cost = (best_thresholds(truth, found, LABELS, *some) for some in ((0, 0), (miss, alarm)))
    for at in range(3):
        if counted(at, 2.0)[2]:
            others = np.arange(0.05, 1.05, 0.1)
            assert f1(at, by_f1[at]) >= max(f1(at, other) for other in others) - 1e-9
            assert cost(at, by_cost[at]) <= min(cost(at, other) for other in others) + 1e-9
        else:
            assert by_f1[at] == 0.5


def test_examples_show_hits_misses_and_false_alarms(tmp_path: Path) -> None:
    files = [picture((200, 200, 200), size=64)] * 3
    truth = [[Truth("a", (5, 20, 30, 50))], [Truth("a", (5, 20, 30, 50))], []]
    box = np.array([[5, 20, 30, 50.0]])
    one = Detections(box, np.array([0.9]), np.array([0]))
    said = as_answers([one, Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)), one])
    frame = pd.DataFrame({"image": files, "label": [write_truth(some) for some in truth]})
    EVALUATION.draw(tmp_path, frame, said, output(0.5), None, SimpleNamespace())
    colours: set[Any] = {
        colour for _, colour in Image.open(tmp_path / "examples.png").convert("RGB").getcolors(1 << 20) or []
    }
    for wanted in (HIT, MISS, ALARM):
        rgb: Any = tuple(int(wanted[at : at + 2], 16) for at in (1, 3, 5))
        assert min(sum(abs(a - b) for a, b in zip(rgb, colour, strict=True)) for colour in colours) < 30


def test_boxes_are_drawn_where_they_are() -> None:
    image = Image.new("RGB", (60, 60), "white")
    made = np.asarray(drawn(image, [((10, 20, 40, 50), "", "#000000")]))
    dark = np.argwhere(made.sum(axis=2) < 100)
    assert dark.min(axis=0).tolist() == [20, 10]
    assert dark.max(axis=0).tolist() == [50, 40]
    assert (np.asarray(image) == 255).all(), "the image itself stays as it is"


def test_the_sample_is_the_same_for_a_seed_and_has_boxes_around_its_parts() -> None:
    rows, again, other = (list(trays(seed, 24)) for seed in (1, 1, 2))
    assert rows == again
    assert rows != other
    objects = [read_truth(text) for _, _, text in rows]
    assert {one.label for some in objects for one in some} == set(NAMES)
    assert any(not some for some in objects)
    for (_, file, _), some in zip(rows, objects, strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(file)).convert("L"), np.float64)
        assert pixels.shape == (HIGH, WIDE)
        for one in some:
            left, top, right, bottom = one.box
            assert 0 <= left < right <= WIDE
            assert 0 <= top < bottom <= HIGH


@pytest.mark.parametrize(
    ("settings_", "said"),
    [
        ({"image.fit": "crop"}, "may cut objects off"),
        ({"image.width": 150}, "image.width is 150, expected a multiple of 8, such as 152"),
        ({"thresholds.miss": 2.0}, "give both, or none"),
        ({"training.class_weights": True}, "no class weights"),
        ({"augment.scale": 0.5}, "greater than or equal to 1"),
        ({"thresholds.overlap": 1.0}, "less than 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings_: dict[str, Any], said: str) -> None:
    with pytest.raises(PlatformError) as caught:
        recipe_config(get_task("objects"), None, settings_)
    assert said in str(caught.value.detail)
    assert len(str(caught.value.detail)) < 200, "a complaint about settings that do not fit together lists none of them"
