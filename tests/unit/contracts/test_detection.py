"""Detection: what is answered, when two answers are the same, which boxes are objects; the engine that finds them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from contracts.bundle import Bundle
from contracts.engine import UnreadableError
from contracts.engines import load_engine
from contracts.errors import PlatformError
from contracts.images import ImageSpec, read_sized
from contracts.problems import get_problem, read_output
from contracts.problems.detection import (
    Detections,
    Truth,
    described,
    matches,
    overlaps,
    read_truth,
    truths,
    within,
    write_truth,
)
from tests.detection_bundle import spots
from tests.image_bundle import picture

PROBLEM = get_problem("detection")
OUTPUT: Any = read_output({"problem": "detection", "labels": ["cup", "pen"], "thresholds": [0.5, 0.3], "longest": 3})


def found(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    numbers = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(numbers[:, :4], numbers[:, 4], numbers[:, 5].astype(np.int64))


def answers(*images: Detections) -> Any:
    made = np.empty(len(images), object)
    made[:] = images
    return made


SOME = answers(found((1, 2, 11, 12, 0.9, 0), (5, 5, 9, 8, 0.4, 0), (20, 20, 30, 50, 0.31, 1)), found())


def test_objects_that_reach_the_threshold_of_their_class_are_answered() -> None:
    decided = PROBLEM.decide(OUTPUT, None, SOME)
    assert [[one["label"] for one in row] for row in decided] == [["cup", "pen"], []]
    documents = PROBLEM.documents(OUTPUT, None, SOME, decided)
    model = PROBLEM.answer_model(OUTPUT)
    for one in documents:
        model.model_validate(one)
    assert documents[0]["objects"][0] == {"label": "cup", "score": 0.9, "box": [1.0, 2.0, 11.0, 12.0]}
    assert documents[1] == {"objects": []}
    for wrong in (
        {"label": "dog", "score": 0.9, "box": [1, 2, 3, 4]},
        {"label": "cup", "score": 0.9, "box": [1, 2, 3]},
    ):
        with pytest.raises(ValidationError):
            model.model_validate({"objects": [wrong]})


def test_tensors_are_filled_to_the_most_objects() -> None:
    decided = PROBLEM.decide(OUTPUT, None, SOME)
    values = {one.name: PROBLEM.values(OUTPUT, one.name, SOME, decided) for one in PROBLEM.tensors(OUTPUT)}
    assert values["count"] == [2, 0]
    assert values["labels"] == ["cup", "pen", "", "", "", ""]
    assert values["scores"] == [0.9, 0.31, 0.0, 0.0, 0.0, 0.0]
    assert values["boxes"][:8] == [1.0, 2.0, 11.0, 12.0, 20.0, 20.0, 30.0, 50.0]
    assert len(values["boxes"]) == 2 * 3 * 4


def test_the_same_answer_is_told_from_another_one() -> None:
    expected = json.loads(json.dumps(PROBLEM.expected(OUTPUT, SOME, 0)))
    assert PROBLEM.differs(OUTPUT, expected, SOME, 0, 1e-6) == ""
    moved = answers(found((1, 2, 11, 12.3, 0.9, 0), (20, 20, 30, 50, 0.31, 1)))
    assert PROBLEM.differs(OUTPUT, expected, moved, 0, 1e-3).startswith("expected: cup at 1, 2, 11, 12")
    assert PROBLEM.differs(OUTPUT, expected, moved, 0, 0.05) == ""
    assert "expected: cup" in PROBLEM.differs(OUTPUT, expected, SOME, 1, 1e-3)
    assert "not expected: cup" in PROBLEM.differs(OUTPUT, [], SOME, 0, 1e-3)
    assert PROBLEM.differs(OUTPUT, {"label": "cup"}, SOME, 0, 1e-3)
    near = answers(found((1, 2, 11, 12, 0.9, 0)))  # the pen is at its threshold: it may be there or not
    assert PROBLEM.differs(OUTPUT, expected, near, 0, 0.02) == ""
    assert "pen" in PROBLEM.differs(OUTPUT, expected, near, 0, 0.001)


@pytest.mark.parametrize(
    ("given_answers", "said"),
    [
        (answers(found()), "not one list of objects per image"),
        (np.array(["a", "b"], object), "row 0 is str"),
        (answers(found(), found(*[(0, 0, 1, 1, 0.5, 0)] * 4)), "row 1 has 4 objects, at most 3"),
        (answers(found((5, 0, 1, 1, 0.5, 0)), found()), "row 0 has a box whose corners are none"),
        (answers(found((0, 0, np.nan, 1, 0.5, 0)), found()), "row 0 has a box whose corners are none"),
        (answers(found((0, 0, 1, 1, 1.5, 0)), found()), "a score that is not between 0 and 1"),
        (answers(found((0, 0, 1, 1, 0.5, 2)), found()), "a class that is none of 2"),
        (answers(Detections(np.zeros((2, 4)), np.zeros(1), np.zeros(1, np.int64)), found()), "not as many boxes"),
    ],
)
def test_answers_of_another_form_are_refused(given_answers: Any, said: str) -> None:
    assert said in PROBLEM.wrong(OUTPUT, given_answers, 2)
    assert PROBLEM.wrong(OUTPUT, SOME, 2) == ""


@pytest.mark.parametrize(
    "fields",
    [
        {"labels": ["a", "a"], "thresholds": [0.1, 0.1]},
        {"labels": ["a"], "thresholds": []},
        {"labels": [], "thresholds": []},
    ],
)
def test_an_output_that_fits_nothing_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        read_output({"problem": "detection", **fields})


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        [1],
        [{"label": "cup"}],
        [{"label": "", "box": [0, 0, 1, 1]}],
        [{"label": "cup", "box": [0, 0, 1]}],
        [{"label": "cup", "box": [0, 0, "1", 1]}],
        [{"label": "cup", "box": [0, 0, True, 1]}],
        [{"label": "cup", "box": [2, 0, 1, 1]}],
        [{"label": "cup", "box": [1, 1, 1, 1]}],
        [{"label": "cup", "box": [0, 0, float("nan"), 1]}],
        [{"label": "cup", "box": [0, 0, 1, 1], "crowd": 1}],
        [{"label": "cup", "box": [0, 0, 1, 1], "color": "red"}],
    ],
)
def test_values_that_are_no_objects_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="object"):
        truths(value)


sides = st.floats(0, 100).map(lambda side: round(side, 2))
boxes = st.tuples(sides, sides, sides, sides).map(
    lambda box: (box[0], box[1], box[0] + box[2] + 0.5, box[1] + box[3] + 0.5)
)
objects = st.lists(st.builds(Truth, st.sampled_from(["cup", "pen"]), boxes, st.booleans()), max_size=6)


@settings(max_examples=40, deadline=None)
@given(objects)
def test_objects_are_read_as_they_were_written(some: list[Truth]) -> None:
    assert read_truth(write_truth(some)) == some


@settings(max_examples=60, deadline=None)
@given(objects, st.lists(st.tuples(boxes, st.floats(0, 1), st.integers(0, 1)), max_size=6))
def test_each_object_is_matched_once_by_one_of_its_class(some: list[Truth], said: Any) -> None:
    one = found(*((*box, score, kind) for box, score, kind in said))
    places = matches(some, OUTPUT.labels, one)
    assert len(places) == len(said)
    hits = [int(at) for at in places if at >= 0]
    assert len(set(hits)) == len(hits)
    for at, place in enumerate(places):
        if place >= 0:
            assert OUTPUT.labels[one.classes[at]] == some[place].label
            assert not some[place].crowd
            assert overlaps(one.boxes[at], np.array([some[place].box]))[0, 0] >= 0.5


@settings(max_examples=60, deadline=None)
@given(boxes, boxes)
def test_overlaps_are_symmetric_and_one_for_the_same(one: Any, other: Any) -> None:
    first, second = np.array([one]), np.array([other])
    assert overlaps(first, first)[0, 0] == pytest.approx(1)
    assert overlaps(first, second)[0, 0] == pytest.approx(overlaps(second, first)[0, 0])
    assert 0 <= overlaps(first, second)[0, 0] <= min(1.0, within(first, second)[0, 0] + 1e-9)


def test_what_lies_in_a_crowd_is_neither_right_nor_wrong() -> None:
    crowd = [Truth("cup", (0, 0, 50, 50), True)]
    said = found((1, 1, 10, 10, 0.9, 0), (1, 1, 10, 10, 0.8, 1), (60, 60, 70, 70, 0.7, 0))
    assert matches(crowd, OUTPUT.labels, said).tolist() == [-2, -1, -1]


def test_what_is_said_of_an_image() -> None:
    assert described([]) == {"objects": 0, "score": None, "side": None, "class": ""}
    [decided, _] = PROBLEM.decide(OUTPUT, None, SOME)
    assert described(decided) == {"objects": 2, "score": 0.605, "side": round((10 + 300**0.5) / 2, 2), "class": "cup"}


@pytest.mark.parametrize(
    ("size", "spec", "spot"),
    [
        ((16, 16), {}, [4.0, 4.0, 12.0, 12.0]),
        ((16, 8), {}, [4.0, 4.0, 12.0, 8.0]),  # half as high: below it is padding, where no object is
        ((16, 8), {"fit": "stretch"}, [4.0, 2.0, 12.0, 6.0]),
        ((4, 4), {}, [1.0, 1.0, 3.0, 3.0]),
    ],
)
def test_boxes_are_in_pixels_of_the_file(tmp_path: Path, size: tuple[int, int], spec: Any, spot: list[float]) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", size, (255, 255, 255)).save(buffer, "PNG")
    engine: Any = load_engine(spots(tmp_path, **spec))
    files = np.empty(1, object)
    files[0] = buffer.getvalue()
    for columns in ({"image": files}, engine.decode({"image": files})):
        [one] = engine.predict(columns)
        assert one.boxes[0].tolist() == spot
        assert one.classes.tolist() == [1, 0], "a box without an area is none"
        assert one.scores.tolist() == pytest.approx([1.0, 0.5])


def test_a_turned_photo_has_boxes_as_it_is_seen(tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 8), (255, 255, 255))
    exif = image.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    files = np.empty(1, object)
    files[0] = buffer.getvalue()
    [one] = load_engine(spots(tmp_path)).predict({"image": files})
    assert one.boxes[0].tolist() == [4.0, 4.0, 8.0, 12.0]
    assert read_sized(files[0], ImageSpec(width=8, height=8), 1000)[1] == (8, 16)


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    engine: Any = load_engine(spots(tmp_path))
    files = np.empty(2, object)
    files[:] = [picture(200), b"no image"]
    with pytest.raises(UnreadableError, match="row 1, image: is no image"):
        engine.decode({"image": files})
    with pytest.raises(UnreadableError, match="row 1, image: is no image"):
        engine.explain({"image": files}, 3)


@pytest.mark.parametrize(("size", "corner"), [((64, 64), (0, 0)), ((64, 32), (1, 1)), ((32, 64), (1, 1))])
def test_reasons_of_an_object_are_the_patches_without_which_it_is_less_sure(
    tmp_path: Path, size: tuple[int, int], corner: tuple[int, int]
) -> None:
    pixels = np.full((size[1], size[0], 3), 20, np.uint8)
    down, across = corner[1] * (size[1] - 8), corner[0] * (size[0] - 8)
    pixels[down : down + 8, across : across + 8] = 255  # the detector is as sure as its brightest pixel
    engine: Any = load_engine(spots(tmp_path, resample="nearest"))
    buffers = []
    for shown in (pixels, np.full_like(pixels, 20)):
        buffers.append(io.BytesIO())
        Image.fromarray(shown).save(buffers[-1], "PNG")
    files = np.empty(2, object)
    files[:] = [buffer.getvalue() for buffer in buffers]
    [told, none] = engine.explain({"image": files}, 5)
    assert none == [], "no object is answered of the dark one"
    side = "75-100%" if corner == (1, 1) else "0-12%"
    assert f"image[{side} from the top, {side} from the left]" in [one.feature for one in told]
    assert engine.explain(engine.decode({"image": files}), 5)[0] == told


def test_a_detector_that_crops_is_refused(tmp_path: Path) -> None:
    bundle = spots(tmp_path)
    file = bundle.path / "model" / "image.json"
    file.write_text(file.read_text().replace('"pad"', '"crop"'))
    with pytest.raises(PlatformError, match="refused"):
        load_engine(Bundle(bundle.path, bundle.document, ""))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from(["pad", "stretch"]))
def test_all_of_an_image_is_in_its_pixels(width: int, height: int, fit: Any) -> None:
    spec = ImageSpec(width=32, height=24, fit=fit)
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 0, 0)).save(buffer, "PNG")
    pixels, shown = read_sized(buffer.getvalue(), spec, 10_000)
    assert pixels.shape == (24, 32, 3)
    assert shown == (width, height)
    across, down = spec.factors(width, height)
    assert width * across <= 32 + 1e-9
    assert height * down <= 24 + 1e-9
    red = pixels[: max(1, round(height * down)), : max(1, round(width * across)), 0]
    assert (red == 200).all()
    assert fit == "stretch" or pixels[..., 0].size - red.size == (pixels[..., 0] == 114).sum()
