"""Reasons of models of tables: what counts, whether it is true of the model, and what the plots show."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from contracts.bundle import Input
from contracts.engine import Reason
from contracts.engines import load_engine
from contracts.errors import PlatformError
from contracts.problems.classification import ClassificationOutput
from contracts.problems.multilabel import MultilabelOutput
from contracts.problems.ranking import SEPARATOR
from pipelines.checks.explanations import CHECK
from pipelines.evaluation import explaining, get_evaluation, scoring
from pipelines.gate_limits import ExplanationLimits
from pipelines.task import GateConfig
from tests.detection_bundle import spots
from tests.problem_bundles import lists, name_tagger

WEIGHTS = {"large": 4.0, "small": 0.5, "none": 0.0, "word": 2.0}
INPUTS = [Input(name=name, dtype="string" if name == "word" else "float64") for name in WEIGHTS]


class Linear:
    """Log-odds are a sum; its reasons are the parts, or in `lying` the less the more an input adds."""

    def __init__(self, lying: bool = False, silent: bool = False) -> None:
        self.lying, self.silent = lying, silent

    def _parts(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        known = {**columns, "word": (columns["word"] == "yes").astype(float) - 0.5}
        return np.stack([weight * np.nan_to_num(known[name]) for name, weight in WEIGHTS.items()], axis=1)

    def predict(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        chance = 1 / (1 + np.exp(-self._parts(columns).sum(axis=1)))
        return np.column_stack([1 - chance, chance])

    def explain(self, columns: Mapping[str, NDArray[Any]], top: int) -> list[list[Reason]]:
        if self.silent:
            raise PlatformError("no reasons", code="not_explainable")
        parts = self._parts(columns)
        parts = np.full(parts.shape, [1 / (1 + weight) for weight in WEIGHTS.values()]) if self.lying else parts
        return [
            [Reason(feature=name, value=None, contribution=float(one)) for name, one in zip(WEIGHTS, row, strict=True)]
            for row in parts
        ]


@pytest.fixture
def document(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(scoring, "find_engine", lambda document: SimpleNamespace(batch_rows=1000))
    output = ClassificationOutput(classes=["no", "yes"])
    signature = SimpleNamespace(inputs=INPUTS, output=output, problem=SimpleNamespace(
        join=np.concatenate, wrong=lambda output, answers, rows: "", name="classification"))  # fmt: skip
    return SimpleNamespace(signature=signature, modality="tabular", decision=None)


def rows(count: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    made: dict[str, NDArray[Any]] = {name: rng.normal(size=count) for name in ("large", "small", "none")}
    return {**made, "word": rng.choice(np.array(["yes", "no"], dtype=object), count)}


def measured(engine: Linear, document: Any, columns: Any, folder: Path | None = None) -> Any:
    return explaining.measure(engine, document, columns, engine.predict(columns), 7, folder)


def test_inputs_stand_by_what_they_add_and_true_reasons_are_more_faithful_than_a_random_order(document: Any) -> None:
    found = measured(Linear(), document, rows(400))
    assert list(found["importance"]) == ["large", "word", "small", "none"]
    assert found["importance"]["word"] == pytest.approx(1.0)
    assert found["importance"]["none"] == 0
    assert found["rows"] == explaining.ROWS
    for kind in ("deletion", "insertion"):
        assert found["faithfulness"][kind]["reasons"] > found["faithfulness"][kind]["random"] + 0.1
    assert found["stability"] > 0.99


def test_reasons_that_are_not_of_the_model_are_less_faithful_than_a_random_order(document: Any) -> None:
    found = measured(Linear(lying=True), document, rows(400))["faithfulness"]
    for kind in ("deletion", "insertion"):
        assert found[kind]["reasons"] < found[kind]["random"] - 0.1


def test_inputs_that_count_are_drawn_also_with_missing_and_constant_values(document: Any, tmp_path: Path) -> None:
    columns = rows(60)
    columns["large"][:10] = np.nan
    columns["small"][:] = 2.0
    columns["word"][:5] = ""
    measured(Linear(), document, columns, tmp_path)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["dependence.png", "importance.png"]


def test_what_gives_no_reasons_of_columns_is_left_out(document: Any) -> None:
    assert measured(Linear(silent=True), document, rows(20)) is None
    for change in (
        {"modality": "recommend"},
        {"signature": SimpleNamespace(**{**vars(document.signature), "inputs": INPUTS[:1]})},
    ):
        assert measured(Linear(), SimpleNamespace(**{**vars(document), **change}), rows(20)) is None


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(0, 5), st.booleans())
def test_areas_are_between_nothing_and_all_for_any_rows(count: int, seed: int, alike: bool) -> None:
    columns = rows(count, seed)
    if alike:  # nothing is left to hide
        columns = {name: values[:1].repeat(count) for name, values in columns.items()}
    engine = Linear()

    def score(columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        return engine._parts(columns).sum(axis=1)

    found = explaining.faithfulness(score, INPUTS, columns, engine._parts(columns), np.random.default_rng(seed))
    assert all(0 <= value <= 1 for kind in found.values() for value in kind.values())


@pytest.mark.parametrize(
    ("classes", "alone", "of"),
    [(["a", "b"], False, [1, 1, 1]), (["a", "b"], True, [0, 1, 1]), (["a", "b", "c"], False, [0, 2, 1])],
)
def test_reasons_are_about_the_positive_class_or_the_answered_one(
    classes: list[str], alone: bool, of: list[int]
) -> None:
    like = np.array([[0.8, 0.1, 0.1], [0.1, 0.3, 0.6], [0.2, 0.7, 0.1]])[:, : len(classes)]
    answers = np.array([[0.6, 0.3, 0.1], [0.5, 0.2, 0.3], [0.25, 0.5, 0.25]])[:, : len(classes)]
    by = get_evaluation("classification")
    said = by.explained(ClassificationOutput(classes=classes), None, answers, like, alone)
    chance = answers[[0, 1, 2], of]
    assert said == pytest.approx(np.log(chance / (1 - chance)))


def test_what_has_no_number_that_reasons_are_about_is_left_out(document: Any) -> None:
    output = SimpleNamespace(problem="image")
    where = SimpleNamespace(**{**vars(document), "signature": SimpleNamespace(inputs=INPUTS, output=output)})
    assert measured(Linear(), where, rows(20)) is None


def test_reasons_of_labels_are_about_the_likeliest_one() -> None:
    like = np.array([[0.2, 0.9, 0.8], [0.6, 0.1, 0.1]])
    answers = np.array([[0.99, 0.5, 0.99], [0.25, 0.9, 0.9]])
    said = get_evaluation("multilabel").explained(MultilabelOutput(labels=["a", "b", "c"]), None, answers, like, False)
    assert said == pytest.approx([0.0, np.log(1 / 3)])


class Labels(Linear):
    """The same chances for three labels, of which the likeliest is the second."""

    def predict(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        chance = 1 / (1 + np.exp(-4 - self._parts(columns).sum(axis=1)))
        return np.column_stack([chance * 0.1, chance, chance * 0.2])


def test_reasons_of_labels_are_measured(document: Any) -> None:
    output = MultilabelOutput(labels=["a", "b", "c"])
    signature = SimpleNamespace(**{**vars(document.signature), "output": output})
    where = SimpleNamespace(**{**vars(document), "signature": signature})
    found, lied = (measured(Labels(lying), where, rows(200)) for lying in (False, True))
    assert found["above_random"] > 0.1 > -0.1 > lied["above_random"]


class Words:
    """Log-odds of the second class are twice the number of the word "good"; `honest` reasons name it."""

    def __init__(self, honest: bool) -> None:
        self.honest = honest

    def predict(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        odds = np.array([2.0 * text.lower().split().count("good") for text in columns["text"]])
        chance = 1 / (1 + np.exp(-odds))
        return np.column_stack([1 - chance, chance])

    def explain(self, columns: Mapping[str, NDArray[Any]], top: int) -> list[list[Reason]]:
        word = "good" if self.honest else "meal"
        return [[Reason(feature=word, value=None, contribution=2.0)] for _ in columns["text"]]


class Bad(Words):
    """The same of the first class, which is answered, and the word "bad"."""

    def predict(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        return super().predict({"text": [text.lower().replace("bad", "good") for text in columns["text"]]})[:, ::-1]  # type: ignore[dict-item]

    def explain(self, columns: Mapping[str, NDArray[Any]], top: int) -> list[list[Reason]]:
        word = "bad" if self.honest else "meal"
        return [[Reason(feature=word, value=None, contribution=2.0)] for _ in columns["text"]]


class Patches:
    """The chance of the second class grows with the light of the left upper quarter, which honest reasons name."""

    def __init__(self, honest: bool) -> None:
        self.place = (
            "0-50% from the top, 0-50% from the left" if honest else "50-100% from the top, 50-100% from the left"
        )

    def content(self, image: NDArray[Any]) -> tuple[int, int]:
        return image.shape[0], image.shape[1]

    def decode(self, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {name: np.stack(list(values)) for name, values in columns.items()}

    def predict(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        light = self.decode(columns)["image"][:, :4, :4].mean(axis=(1, 2, 3)) / 255
        return np.column_stack([1 - light, light])

    def explain(self, columns: Mapping[str, NDArray[Any]], top: int) -> list[list[Reason]]:
        return [[Reason(feature=f"image[{self.place}]", value=None, contribution=1.0)] for _ in columns["image"]]


def images(count: int) -> NDArray[Any]:
    made = np.empty(count, dtype=object)
    for at in range(count):
        made[at] = np.full((8, 8, 3), 20, np.uint8)
        made[at][:4, :4] = 230
    return made


@pytest.mark.parametrize(
    ("modality", "engine", "columns"),
    [
        ("text", Words, {"text": np.array(["A Good meal in a small town by the sea"] * 30, dtype=object)}),
        ("text", Bad, {"text": np.array(["A BAD meal in a small town by the sea"] * 30, dtype=object)}),
        ("image", Patches, {"image": images(30)}),
    ],
)
def test_taking_out_true_reasons_costs_more_than_as_much_at_random(
    document: Any, modality: str, engine: Any, columns: Any
) -> None:
    where = SimpleNamespace(**{**vars(document), "modality": modality})
    true, false = (measured(engine(honest), where, columns) for honest in (True, False))
    assert true["rows"] == explaining.FEW
    assert true["removed"]["reasons"] > true["removed"]["random"] + 0.5
    assert true["above_random"] == pytest.approx(true["removed"]["reasons"] - true["removed"]["random"])
    assert true["stability"] == 1, "these reasons are the same for every row"
    assert false["removed"]["reasons"] < true["removed"]["reasons"] - 0.5


def test_reasons_of_spans_and_boxes_are_truer_than_chance(tmp_path: Path) -> None:
    tagger = name_tagger(tmp_path / "tagger", anna="PER", berg="PER")
    texts = np.array(
        [f"On day {at} we met Anna Berg by the sea, and nobody else was there." for at in range(30)], object
    )
    dark = np.full((64, 64, 3), 20, np.uint8)
    bright = dark.copy()
    bright[:8, :8] = 255
    files = np.empty(6, object)
    files[:] = [file_of(bright)] * 5 + [file_of(dark)]
    detector = spots(tmp_path / "spots", resample="nearest")
    for bundle, columns, known in ((tagger, {"text": texts}, explaining.FEW), (detector, {"image": files}, 5)):
        engine: Any = load_engine(bundle)
        answers = scoring.predict(engine, columns, bundle.document)
        found = explaining.measure(engine, bundle.document, columns, answers, 7, None)
        assert found is not None
        assert found["rows"] == known, "rows where something is found"
        assert found["removed"]["reasons"] > 1
        assert found["above_random"] > 0.5
        assert found["stability"] > 0.5


class Lines:
    """Its answer is the second line, which `honest` reasons name."""

    def __init__(self, honest: bool) -> None:
        self.at = 1 if honest else 3

    def predict(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        return np.array([" ".join(text.split("\n")[1:2]) for text in columns["text"]], dtype=object)

    def explain(self, columns: Mapping[str, NDArray[Any]], top: int) -> list[list[Reason]]:
        return [[Reason(feature=text.split("\n")[self.at], value=None, contribution=1.0)] for text in columns["text"]]


def test_reasons_of_texts_that_are_answered_are_measured_by_the_words_that_are_gone(document: Any) -> None:
    output = SimpleNamespace(problem="generation")
    where = SimpleNamespace(**{**vars(document), "modality": "text", "signature": SimpleNamespace(
        **{**vars(document.signature), "output": output})})  # fmt: skip
    columns = {"text": np.array(["one early bird\nsings to me\nof all that\nyou never see"] * 9, dtype=object)}
    true, false = (measured(Lines(honest), where, columns) for honest in (True, False))  # type: ignore[arg-type]
    assert true["removed"]["reasons"] == 1
    assert true["removed"]["unit"] == "share of its words"
    assert true["above_random"] > 0.1 > false["above_random"]


def lists_measured(folder: Path, lying: bool) -> Any:
    bundle = lists(folder)
    engine: Any = load_engine(bundle)
    if lying:
        told = type(engine.model)._because

        def other(model: Any, recent: Any, weights: Any, chosen: Any, why: Any) -> Any:
            said = told(model, recent, weights, chosen, why)
            rest = [[model.items[at] for at in recent if model.items[at] not in some] for some in said]
            return tuple(tuple(one[: len(some)]) for one, some in zip(rest, said, strict=True))

        object.__setattr__(engine.model, "_because", partial(other, engine.model))
    names = [item.name for item in bundle.document.signature.inputs]
    history = SEPARATOR.join(engine.model.items[:5])
    columns = {name: np.array([history if name == "items" else ""] * 3, dtype=object) for name in names}
    columns |= {
        name: np.full(3, value) for name, value in (("k", 5.0), ("diversity", 0.0), ("explore", 0), ("age", 0.0))
    }
    return explaining.measure(engine, bundle.document, columns, engine.predict(columns), 7, None)


def test_what_a_list_says_it_follows_from_is_truer_than_the_rest_of_the_history(tmp_path: Path) -> None:
    true, false = (lists_measured(tmp_path / str(lying), lying) for lying in (False, True))
    assert true["rows"] == 3
    assert true["above_random"] > 0.1 > 0 > false["above_random"]
    assert true["stability"] == 1


def file_of(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def judged(told: Any, **limits: Any) -> Any:
    config = GateConfig(explanations=ExplanationLimits(**limits))
    candidate: Any = SimpleNamespace(settings=config, evaluation={"explanations": told} if told else {})
    return CHECK.find(candidate)


@pytest.mark.parametrize(
    ("told", "limits", "passes"),
    [
        ({"above_random": 0.1, "stability": 0.9}, {}, []),
        ({"above_random": 0.1, "stability": 0.9}, {"above_random": 0, "stability": 0.9}, [True, True]),
        ({"above_random": 0.0, "stability": 0.9}, {"above_random": 0}, [False]),
        ({"above_random": -0.2, "stability": 0.3}, {"above_random": 0.05, "stability": 0.5}, [False, False]),
        (None, {"above_random": 0, "stability": 0.9}, []),
        (None, {"above_random": 0, "required": True}, [False]),
        (None, {"required": True}, [False]),
    ],
)
def test_the_gate_refuses_reasons_that_are_no_truer_than_chance(told: Any, limits: Any, passes: list[bool]) -> None:
    assert [one.passed for one in judged(told, **limits).checks] == passes


def test_a_refusal_says_what_is_wrong_with_the_reasons_and_what_to_do() -> None:
    found = judged({"above_random": -0.2, "stability": 0.3}, above_random=0, stability=0.5)
    assert [one.rule for one in found.checks] == ["above", "at least"]
    assert "no truer of this model than a random order" in found.notes[0]
    assert "--set gate.explanations.above_random=" in found.notes[0]
    assert "--set gate.explanations.stability=" in found.notes[1]
    assert judged(None, above_random=0).notes == ["gate.explanations: this model gives no reasons, so none were judged"]
