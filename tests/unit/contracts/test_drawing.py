"""What draws: which class a text names, steps from noise to an image, guidance, and an end before they are done."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.drawing_engine import Wish
from contracts.engine import UnreadableError
from contracts.engines import load_engine
from contracts.engines.flow import follow, pixels_of
from contracts.errors import PlatformError
from contracts.problems import get_problem, read_output
from contracts.problems.image import Drawn, UnnamedError, classes_in, named
from contracts.provenance import KEYWORD, marked_png, plain_png, read_mark
from tests.drawing_bundle import GRAYS, LABELS, OUTPUT, SIDE, columns, grays

PROBLEM, SAID = get_problem("image"), read_output(OUTPUT)


@pytest.mark.parametrize(
    ("prompt", "label"),
    [
        ("dark", "dark"),
        ("A DARK one!", "dark"),
        ("a light grey, not darker", "light grey"),
        ("light, grey", "light grey"),
        ("so grey it is", "grey"),
    ],
)
def test_a_text_names_the_class_whose_words_stand_in_it(prompt: str, label: str) -> None:
    assert named(prompt, LABELS) == label


@pytest.mark.parametrize("prompt", ["", "blue", "darkness", "dark or grey", "light"])
def test_a_text_that_names_no_class_or_several_is_refused_without_its_words(prompt: str) -> None:
    with pytest.raises(UnnamedError, match="expected one of dark, grey, light grey") as refused:
        named(prompt, LABELS)
    assert "blue" not in str(refused.value)


def test_classes_have_words_of_any_language() -> None:
    assert classes_in("a give_way sign", ["give_way", "stop"]) == {"give_way"}
    assert named("魚 bitte", ["魚", "猫"]) == "魚"


@pytest.mark.parametrize(("method", "most"), [("euler", 0.06), ("heun", 0.004)])
def test_steps_follow_the_direction_to_its_end(method: str, most: float) -> None:
    start = np.full((1, 1, 2, 2), 1.0, np.float32)
    end = list(follow(lambda now, time: now, start, 20, method))  # grows by itself: e at time 1
    assert len(end) == 20
    assert abs(float(end[-1].mean()) / math.e - 1) < most
    assert abs(float(end[-1].mean()) / math.e - 1) > most / 100


def test_the_engine_draws_what_is_asked_and_the_seed_decides(tmp_path: Path) -> None:
    engine: Any = load_engine(grays(tmp_path))
    found = engine.predict(columns([*LABELS, "light grey"], steps=3))
    assert PROBLEM.wrong(SAID, found, 4) == ""
    for one, gray in zip(found, (*GRAYS[:3], GRAYS[2]), strict=True):
        assert abs(float(one.pixels.mean()) - (gray + 1) * 127.5) < 1
        assert (one.made["steps"], one.made["model"]) == (3, "grays")
    alone = engine.predict(columns(["dark"], steps=3))
    assert alone[0] == found[0]


def test_what_is_nearly_black_or_white_is_where_the_bundle_says_so() -> None:
    image = np.array([-1.2, -0.97, -0.9, 0.0, 0.93, 1.0], np.float32).reshape(1, 1, 2, 3)
    assert pixels_of(image).ravel().tolist() == [0, 4, 13, 128, 246, 255]
    assert pixels_of(image, (4, 246)).ravel().tolist() == [0, 0, 13, 128, 255, 255]


def test_guidance_pushes_away_from_no_class(tmp_path: Path) -> None:
    engine: Any = load_engine(grays(tmp_path))
    plain, pushed = (float(engine.predict(columns(["grey"], guidance=push))[0].pixels.mean()) for push in (1.0, 1.5))
    # From 0.4, that of no class, to 0.0 and half as far again.
    assert plain == pytest.approx(127.5, abs=1)
    assert pushed == pytest.approx((0.4 + 1.5 * (0.0 - 0.4) + 1) * 127.5, abs=1)


def test_a_row_that_names_nothing_is_named(tmp_path: Path) -> None:
    engine = load_engine(grays(tmp_path))
    with pytest.raises(UnreadableError, match="row 1, prompt: names no class"):
        engine.predict(columns(["dark", "blue"]))
    with pytest.raises(PlatformError, match="no reasons"):
        engine.explain(columns(["dark"]), 3)


def test_progress_counts_evaluations_and_may_end_it(tmp_path: Path) -> None:
    engine: Any = load_engine(grays(tmp_path))
    wishes = [Wish(label="dark", seed=1, steps=4, guidance=2.0), Wish(label="grey", seed=2, steps=2, guidance=1.0)]
    told: list[int] = []
    assert [one.label for one in engine.draw(wishes, told.append)] == ["dark", "grey"]
    assert told == sorted(told)
    assert told[-1] == sum(map(engine.evaluations, wishes)) == 14 + 3

    def end(done: int) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        engine.draw(wishes, end)


def test_another_image_is_not_what_is_expected(tmp_path: Path) -> None:
    answers = load_engine(grays(tmp_path)).predict(columns(["dark", "grey"]))
    expected = json.loads(json.dumps(PROBLEM.expected(SAID, answers, 0)))
    assert PROBLEM.differs(SAID, expected, answers, 0, 1e-9) == ""
    assert "expected an image of dark" in PROBLEM.differs(SAID, expected, answers, 1, 1.0)
    other = answers.copy()
    other[0] = Drawn(answers[0].pixels + np.uint8(30), "dark")
    assert "pixels differ by 0.11" in PROBLEM.differs(SAID, expected, other, 0, 0.02)
    assert PROBLEM.differs(SAID, expected, other, 0, 0.2) == ""
    assert PROBLEM.differs(SAID, {"label": "dark", "image": "AAAA"}, answers, 0, 1.0)


@pytest.mark.parametrize(
    ("one", "said"),
    [
        ("x", "is str, not an image"),
        (Drawn(np.zeros((4, 4, 1), np.uint8), "dark"), "has shape (4, 4, 1)"),
        (Drawn(np.zeros((SIDE, SIDE, 1)), "dark"), "of float64"),  # type: ignore[arg-type]
        (Drawn(np.zeros((SIDE, SIDE, 1), np.uint8), "blue"), "does not know"),
    ],
)
def test_what_is_no_image_is_refused(one: Any, said: str) -> None:
    wrong = np.empty(1, dtype=object)
    wrong[0] = one
    assert said in PROBLEM.wrong(SAID, wrong, 1)


def test_a_bundle_without_its_parts_is_refused(tmp_path: Path) -> None:
    bundle = grays(tmp_path)
    (bundle.path / "model" / "flow.json").write_text('{"steps": 0}')
    with pytest.raises(PlatformError, match="drawing model refused"):
        load_engine(bundle)


def test_a_mark_is_in_the_file_and_tells_of_its_pixels() -> None:
    pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    mark = read_mark(marked_png(pixels, {"model": "m", "seed": 7, "label": "魚"}))
    assert (mark["model"], mark["seed"], mark["label"]) == ("m", 7, "魚")
    assert mark["digital_source_type"].endswith("trainedAlgorithmicMedia")
    assert "seal" not in mark
    for file, said in ((plain_png(pixels), f"has no chunk {KEYWORD}"), (b"no image", "is no PNG file")):
        with pytest.raises(PlatformError) as refused:
            read_mark(file)
        assert said in refused.value.detail
