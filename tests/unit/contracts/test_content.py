"""Traits of texts and images: what changes with the content is seen, and no content is in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.bundle import Input
from contracts.content import (
    describe_content,
    distance,
    image_traits,
    looked_at,
    text_traits,
    traits_of,
    unknown_share,
)

ENGLISH = ["the bank said that profit rose", "what analysts had expected", "the company had a strong quarter"] * 8
NOTE = Input(name="note", dtype="string")


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("the bank", "latin"),
        ("Äpfel und Öl", "latin"),
        ("Банк сообщил", "cyrillic"),
        ("銀行は利益が増えたと", "han"),
        ("数据", "han"),
        ("τράπεζα", "greek"),
        ("بنك", "arabic"),
        ("12.5 %", None),
        ("", None),
    ],
)
def test_the_script_is_that_of_most_letters(text: str, script: str | None) -> None:
    assert text_traits({})(text) == {"script": script}


def test_another_language_is_less_familiar_than_what_was_trained_on() -> None:
    described = describe_content({"note": np.array(ENGLISH, object)}, [NOTE], {})["note"]
    traits = text_traits(described)
    assert described["traits"]["familiar"]["mean"] > 0.9
    assert float(traits("the bank said that the company had expected")["familiar"] or 0) > 0.6
    assert float(traits("die Bank teilte mit, dass der Gewinn stieg")["familiar"] or 0) < 0.3
    assert traits("ab")["familiar"] is None


def test_rare_words_are_not_in_the_baseline() -> None:
    described = describe_content({"note": np.array([*ENGLISH, "zxqv"], object)}, [NOTE], {})["note"]
    assert "zxq" not in described["grams"]


def test_what_has_traits_is_text_or_file_and_no_category() -> None:
    inputs = [NOTE, Input(name="kind", dtype="string", categories=["a"]), Input(name="photo", dtype="bytes")]
    inputs += [Input(name="city", dtype="string"), Input(name="size", dtype="float64")]
    assert set(traits_of(inputs, {"city": {"kind": "category"}})) == {"note", "photo"}


def test_the_share_of_unknown_tokens_is_of_the_first_text() -> None:
    columns = {"note": np.array(["a", "b"], object), "more": np.array(["a", "b"], object)}
    inputs = [NOTE, Input(name="more", dtype="string")]
    found = describe_content(columns, inputs, {}, [unknown_share([1, 7], 7), unknown_share([], 7)])
    assert (found["note"]["traits"]["unknown"]["mean"], found["note"]["traits"]["unknown"]["missing"]) == (0.5, 0.5)
    assert "unknown" not in found["more"]["traits"]


def _around(direction: list[float], rows: int) -> list[Any]:
    """Vectors about a direction, of many lengths."""
    rng = np.random.default_rng(5)
    return [(rng.normal(direction, 0.3)) * rng.uniform(1, 9) for _ in range(rows)]


def test_the_distance_from_the_usual_vector_is_of_the_first_text_and_of_other_rows_than_the_center() -> None:
    columns = {"note": np.array(["a", "b"], object), "more": np.array(["a", "b"], object)}
    inputs, vectors = [NOTE, Input(name="more", dtype="string")], [*_around([2.0, 2.0, 0.0], 99), np.zeros(3)]
    found = describe_content(columns, inputs, {}, vectors=vectors)
    center = np.array(found["note"]["center"])
    assert center == pytest.approx([0.5**0.5, 0.5**0.5, 0.0], abs=0.05)
    assert np.linalg.norm(center) == pytest.approx(1, abs=1e-6)
    told = found["note"]["traits"]["distance"]
    assert (told["rows"], told["missing"]) == (74, 0), "three of four, and the one without direction says nothing"
    measured = [float(distance(one, center)["distance"] or 0) for at, one in enumerate(vectors[:-1]) if at % 4]
    assert told["mean"] == pytest.approx(np.mean(measured))
    assert "center" not in found["more"]
    assert "distance" not in found["more"]["traits"]
    assert distance(-7 * center, center)["distance"] == pytest.approx(2)
    assert distance(np.zeros(3), center) == {}


@pytest.mark.parametrize("vectors", [_around([1.0, 0.0], 31), [], [np.array([1.0, 0]), np.array([-1.0, 0])] * 32])
def test_of_few_vectors_or_such_without_a_direction_nothing_is_said(vectors: list[Any]) -> None:
    turned = [one if at % 8 else -one for at, one in enumerate(vectors)]  # of every fourth, which are all alike
    found = describe_content({"note": np.array(["a"], object)}, [NOTE], {}, vectors=turned)["note"]
    assert "center" not in found
    assert set(found["traits"]) == {"script"}


def _image(change: Any = lambda pixels: pixels) -> dict[str, Any]:
    base = np.random.default_rng(3).normal(128, 30, (64, 48, 3)).clip(0, 255)
    return image_traits({})(change(base))


def test_images_that_are_darker_flatter_or_blurred_say_so() -> None:
    usual = _image()
    assert _image(lambda pixels: pixels / 2)["brightness"] == pytest.approx(usual["brightness"] / 2, rel=1e-3)
    flat = _image(lambda pixels: 128 + (pixels - 128) / 4)
    assert flat["contrast"] == pytest.approx(usual["contrast"] / 4, rel=1e-2)
    blurred = _image(lambda pixels: sum(np.roll(pixels, by, axis=1) for by in range(5)) / 5)
    assert blurred["sharpness"] < usual["sharpness"] / 1.5
    assert _image(lambda pixels: np.moveaxis(pixels, -1, 0)) == usual


@settings(max_examples=12, deadline=None)
@given(st.text(max_size=300), st.lists(st.integers(1, 70), max_size=3), st.integers(0, 9))
def test_traits_are_those_of_what_is_looked_at(text: str, shape: list[int], seed: int) -> None:
    of_text, pixels = text_traits({"grams": ["abc"]}), np.random.default_rng(seed).integers(0, 255, shape, np.uint8)
    assert of_text(looked_at(text)) == of_text(text)
    little = looked_at(pixels)
    assert image_traits({})(little) == image_traits({})(pixels)
    assert little.base is None, "it keeps nothing else in memory"


@settings(max_examples=12, deadline=None)
@given(st.text(max_size=12), st.lists(st.integers(1, 5), min_size=0, max_size=4))
def test_anything_has_traits(text: str, shape: list[int]) -> None:
    found = text_traits({"grams": ["abc"]})(text)
    assert found["familiar"] is None or 0 <= float(found["familiar"]) <= 1
    assert all(value == value for value in image_traits({})(np.zeros(shape)).values())
