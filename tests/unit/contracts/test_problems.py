"""Problems: what each says about answers, and that other packages add theirs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from contracts.bundle import Golden, Signature
from contracts.errors import PlatformError
from contracts.plugins import Rooms
from contracts.problems import OURS, PROBLEMS, get_problem, read_output
from contracts.problems.answering import Answered, Citation, Passage, answered_of, document_of
from contracts.problems.base import Output
from contracts.problems.classification import Decision
from contracts.problems.detection import Detections
from contracts.problems.ranking import Ranked
from contracts.problems.tagging import labelled
from contracts.tagging import Tagged
from tests import drawing_bundle
from tests.packages import install

DECISION = Decision(positive="b", threshold=0.3, false_positive_cost=1.0, false_negative_cost=2.0)
ANSWERS: dict[str, tuple[dict[str, Any], list[list[float]]]] = {
    "classification": ({"classes": ["a", "b"]}, [[0.8, 0.2], [0.4, 0.6]]),
    "multilabel": ({"labels": ["x", "y", "z"], "thresholds": [0.5, 0.2, 0.9]}, [[0.6, 0.3, 0.1], [0.1, 0.1, 0.1]]),
    "regression": ({"coverage": 0.9, "unit": "EUR"}, [[10.0, 8.0, 12.5], [-3.0, -4.0, -1.0]]),
    "embedding": ({"dimensions": 2}, [[0.6, 0.8], [1.0, 0.0]]),
}

LISTS = np.empty(2, dtype=object)
LISTS[0] = Ranked(("a", "b"), (0.9, 0.5), ("similar", "new"), (("c",), ()), (1.0, 1.0), {"novelty": 2.5, "tail": 0.5})
LISTS[1] = Ranked((), (), (), (), ())
SCENES = np.empty(2, dtype=object)
SCENES[0] = Detections(np.array([[0.0, 1.0, 5.0, 4.0], [2.0, 2.0, 3.0, 9.0]]), np.array([0.9, 0.4]), np.array([1, 0]))
SCENES[1] = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
SPANS = np.empty(2, dtype=object)
SPANS[:] = [[Tagged(0, 4, "PER", 0.9), Tagged(8, 14, "LOC", 0.7)], []]
SAID = np.empty(2, dtype=object)
_FOUND = Passage("a.md#0", "a.md", "A", "B", 0, ("staff",), 0.9, "It is 3. It is not 4.")
SAID[0] = Answered("It is 3.", 0.9, (Citation(0, "It is 3."),), (_FOUND, replace(_FOUND, id="a.md#1", score=0.25)))
SAID[1] = Answered("", 0.25, (), ())
TEXTS = np.array(["Rain tomorrow.", "明天下雨。"], dtype=object)


def of(name: str) -> tuple[Any, Any, Any]:
    if name == "generation":
        return get_problem(name), read_output({"problem": name, "max_characters": 20}), TEXTS
    if name == "tagging":
        return get_problem(name), read_output({"problem": name, "types": ["PER", "LOC"]}), SPANS
    if name == "answering":
        sizes = {"k": 1, "longest": 2, "passages": 9, "documents": 2, "threshold": 0.5}
        return get_problem(name), read_output({"problem": name, **sizes}), SAID
    if name == "ranking":
        return get_problem(name), read_output({"problem": name, "k": 2, "longest": 3, "catalogue": 5}), LISTS
    if name == "detection":
        return get_problem(name), read_output({"problem": name, "labels": ["a", "b"], "thresholds": [0.5, 0.5]}), SCENES
    if name == "image":
        return get_problem(name), read_output(drawing_bundle.OUTPUT), drawing_bundle.pictures(2, 0)[1]
    fields, rows = ANSWERS[name]
    return get_problem(name), read_output({"problem": name, **fields}), np.array(rows)


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_are_what_they_were_and_another_one_is_named(name: str) -> None:
    problem, output, answers = of(name)
    assert problem.wrong(output, answers, 2) == ""
    for row in range(2):
        expected = json.loads(json.dumps(problem.expected(output, answers, row)))
        assert problem.differs(output, expected, answers, row, 1e-9) == ""
        assert "expected" in problem.differs(output, expected, answers + 0.01, row, 1e-5)
        assert problem.differs(output, expected[:-1], answers, row, 1.0)
    assert problem.differs(output, problem.expected(output, answers * np.nan, 0), answers, 0, 1.0)


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_of_another_form_are_refused(name: str) -> None:
    problem, output, answers = of(name)
    assert "the model gives" in problem.wrong(output, answers, 3)
    assert "the model gives" in problem.wrong(output, answers[:, :-1], 2)
    assert problem.wrong(output, answers[:0], 0) == ""


def test_texts_are_what_they_were_or_differ_by_a_share_of_their_characters() -> None:
    problem, output, answers = of("generation")
    assert problem.wrong(output, answers, 2) == ""
    expected = problem.expected(output, answers, 0)
    assert problem.differs(output, expected, answers, 0, 1e-4) == ""
    other = np.array(["Rain tomorrow!", "Rain"], dtype=object)
    assert "from character 13 on, of 14; got 14" in problem.differs(output, expected, other, 0, 1e-4)
    assert problem.differs(output, expected, other, 0, 0.1) == ""
    assert "from character 4 on" in problem.differs(output, expected, other, 1, 0.1)
    assert "expected" in problem.differs(output, "", other, 0, 0.5)
    assert problem.differs(output, [0.5], answers, 0, 1.0)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (["one"], "not one text per example"),
        (["one", 2.0], "row 1 is float, not a text"),
        (["one", "x" * 21], "row 1 has 21 characters, at most 20"),
        (["\ud83d", "two"], "row 0 has half a character"),
    ],
)
def test_what_is_no_text_is_refused(answers: list[Any], said: str) -> None:
    problem, output, _ = of("generation")
    assert said in problem.wrong(output, np.array(answers, dtype=object), 2)


def answers_like(score: float) -> Any:
    found = LISTS.copy()
    found[0] = replace(LISTS[0], scores=(score, score))
    return found


def test_lists_are_what_they_were_and_items_of_equal_scores_may_change_places() -> None:
    problem, output, answers = of("ranking")
    assert problem.wrong(output, answers, 2) == ""
    expected = json.loads(json.dumps(problem.expected(output, answers, 0)))
    assert problem.differs(output, expected, answers, 0, 1e-6) == ""
    other = {**expected, "scores": [0.9, 0.6]}
    assert problem.differs(output, other, answers, 0, 1e-3) == "place 1: expected 'b' with 0.6, got 'b' with 0.5"
    assert "place 0" in problem.differs(output, {**expected, "items": ["b", "a"]}, answers, 0, 1e-3)
    assert "place 0" in problem.differs(output, {**expected, "items": ["c", "b"]}, answers, 0, 1e-3)
    assert problem.differs(output, {"items": ["b", "a"], "scores": [0.9, 0.8999]}, answers_like(0.9), 0, 1e-3) == ""
    assert "expected 2 items, got 0" in problem.differs(output, expected, answers, 1, 1.0)
    assert problem.differs(output, "a", answers, 0, 1.0)


_PARTS = ("items", "scores", "why", "because", "propensity")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"items": ("a", "a")}, "an item twice"),
        ({"scores": (0.9, float("nan"))}, "not finite"),
        ({"why": ("new",)}, "not as many scores or reasons"),
        (
            {name: getattr(LISTS[0], name) * 2 for name in ("items", "scores", "why", "because", "propensity")},
            "at most 3",
        ),
    ],
)
def test_what_is_no_list_is_refused(changed: dict[str, Any], said: str) -> None:
    problem, output, answers = of("ranking")
    wrong = answers.copy()
    wrong[0] = replace(answers[0], **changed)
    assert said in problem.wrong(output, wrong, 2)
    wrong[0] = "a|b"
    assert "is str, not a list of items" in problem.wrong(output, wrong, 2)


def test_spans_are_what_they_were_or_the_other_one_is_named() -> None:
    problem, output, answers = of("tagging")
    assert problem.wrong(output, answers, 2) == ""
    expected = json.loads(json.dumps(problem.expected(output, answers, 0)))
    assert problem.differs(output, expected, answers, 0, 1e-9) == ""
    assert "expected score 0.8" in problem.differs(output, [[0, 4, "PER", 0.8], expected[1]], answers, 0, 1e-3)
    assert "expected LOC from 0 to 4" in problem.differs(output, [[0, 4, "LOC", 0.9], expected[1]], answers, 0, 1e-3)
    assert problem.differs(output, expected, answers, 1, 1.0) == "expected 2 spans, got 0"
    assert problem.differs(output, None, answers, 0, 1.0)


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        ("PER", "is str, not a list of spans"),
        ([Tagged(3, 3, "PER", 0.5)], "is empty, or overlaps"),
        ([Tagged(0, 4, "PER", 0.5), Tagged(3, 5, "LOC", 0.5)], "overlaps the one before"),
        ([Tagged(0, 4, "ORG", 0.5)], "has type 'ORG'"),
        ([Tagged(0, 4, "PER", float("nan"))], "score nan"),
    ],
)
def test_what_is_no_list_of_spans_is_refused(spans: Any, said: str) -> None:
    problem, output, answers = of("tagging")
    wrong = answers.copy()
    wrong[0] = spans
    assert said in problem.wrong(output, wrong, 2)


@pytest.mark.parametrize(
    "given",
    [
        '[[9, 12, "LOC"], [0, 3, "PER"]]',
        [{"start": 9, "end": 12, "label": "LOC"}, {"start": 0, "end": 3, "type": "PER"}],
        [
            {"start_position": 0, "end_position": 3, "entity_type": "PER", "entity_value": "Ann"},
            {"start_position": 9, "end_position": 12, "entity_type": "LOC"},
        ],
    ],
)
def test_spans_are_read_as_other_tools_write_them(given: Any) -> None:
    assert labelled(given) == [(0, 3, "PER"), (9, 12, "LOC")]
    assert labelled("") == []


@pytest.mark.parametrize(
    "given", ["{}", "[[1, 2]]", '[[2, 1, "A"]]', '[[0, 1.5, "A"]]', '[[0, true, "A"]]', "[7]", "x"]
)
def test_what_is_no_span_is_refused_without_its_value(given: str) -> None:
    with pytest.raises(ValueError, match=r"span|Expecting value"):
        labelled(given)


def test_an_answer_is_told_apart_by_its_passages_and_by_whether_there_is_one() -> None:
    problem, output, answers = of("answering")
    assert problem.wrong(output, answers, 2) == ""
    first = problem.expected(output, answers, 0)
    assert problem.differs(output, first, answers, 0, 0.01) == ""
    assert "another kind" not in problem.differs(output, problem.expected(output, answers, 1), answers, 0, 0.01)
    assert "expected 0 passages, got 2" in problem.differs(output, problem.expected(output, answers, 1), answers, 0, 1)
    assert "'z.md#0'" in problem.differs(output, {**first, "passages": ["z.md#0", "a.md#1"]}, answers, 0, 0.01)
    assert "expected no answer" in problem.differs(output, {**first, "text": ""}, answers, 0, 0.01)
    assert "confidence 0.5" in problem.differs(output, {**first, "confidence": 0.5}, answers, 0, 0.01)
    assert answered_of(document_of(SAID[0])).passages[0] == replace(_FOUND, labels=())
    assert "labels" not in json.dumps(document_of(SAID[0])), "nobody is told who else may read a passage"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"citations": ()}, "no citation"),
        ({"text": ""}, "citations and no text"),
        ({"citations": (Citation(7, "x"),)}, "cites a passage that it does not have"),
        ({"passages": (_FOUND,) * 3}, "3 passages, at most 2"),
        ({"confidence": float("nan")}, "not finite"),
    ],
)
def test_an_answer_without_support_is_refused(changes: dict[str, Any], said: str) -> None:
    problem, output, answers = of("answering")
    wrong = answers.copy()
    wrong[0] = replace(answers[0], **changes)
    assert said in problem.wrong(output, wrong, 2)


@pytest.mark.parametrize("name", OURS)
def test_documents_follow_their_model_and_tensors_have_the_size_they_say(name: str) -> None:
    problem, output, answers = of(name)
    decision = DECISION if name == "classification" else None
    decided = problem.decide(output, decision, answers)
    model = problem.answer_model(output)
    for document in problem.documents(output, decision, answers, decided):
        model.model_validate(document)
    for tensor in problem.tensors(output):
        values = problem.values(output, tensor.name, answers, decided)
        assert len(values) == 2 * int(np.prod(tensor.shape))


@pytest.mark.parametrize("name", OURS)
def test_parts_are_joined_to_the_whole(name: str) -> None:
    problem, _, answers = of(name)
    parts = [problem.part(answers, 0, 1), problem.part(answers, 1, 2)]
    assert (problem.join(parts) == answers).all()


def test_decisions() -> None:
    problem, output, answers = of("classification")
    assert problem.decide(output, DECISION, answers) == [("a", 0.2), ("b", 0.6)]
    assert problem.decide(output, None, answers) == [("a", 0.8), ("b", 0.6)]
    assert problem.decide(output, DECISION, answers[:1]) == [("a", 0.2)]
    problem, output, answers = of("multilabel")
    assert problem.decide(output, None, answers) == [["x", "y"], []]
    problem, output, answers = of("regression")
    assert problem.decide(output, None, answers) == [10.0, -3.0]


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ({"problem": "nothing"}, "unknown problem 'nothing'"),
        ({"classes": ["a", "b"]}, "problem"),
        ({"problem": "classification", "classes": ["a", "a"]}, "stands twice"),
        ({"problem": "multilabel", "labels": ["a|b"]}, "separates labels"),
        ({"problem": "multilabel", "labels": ["a"], "thresholds": [0.1, 0.2]}, "2 thresholds for 1 labels"),
        ({"problem": "ranking", "k": 9, "longest": 5, "catalogue": 9}, "no list has more than 5"),
        ({"problem": "embedding", "dimensions": 0}, "greater than or equal to 1"),
    ],
)
def test_an_output_that_cannot_be_is_refused(output: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match="(?s).*" + said.replace("|", r"\|")):
        Signature.model_validate({"inputs": [], "output": output})


def test_documents_of_version_1_are_read() -> None:
    signature = Signature.model_validate({"inputs": [], "classes": ["no", "yes"]})
    assert signature.output == read_output({"problem": "classification", "classes": ["no", "yes"]})
    assert Signature.model_validate_json(signature.model_dump_json()) == signature
    golden = Golden.model_validate_json('{"inputs": {"x": 1}, "probabilities": [0.25, 0.75]}')
    assert golden.expected == [0.25, 0.75]


def package(folder: Path, name: str, group: str, entry: str, code: str) -> None:
    """A package of one module that is installed in `folder`, with one entry point."""
    install(folder, name, {f"{name}.py": code}, {group: entry})


def test_another_package_adds_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from contracts.problems.base import Output\nfrom contracts.problems.regression import Regression\n"
        "class Counts(Output):\n    problem: str = 'counts'\n    most: int\n"
        "class Problem(Regression):\n    name = 'counts'\n    output = Counts\nPROBLEM = Problem()\n"
    )
    package(tmp_path, "tallies_for_test", "problems", "counts = tallies_for_test:PROBLEM", code)
    monkeypatch.syspath_prepend(tmp_path)
    assert "counts" in PROBLEMS.names()
    signature = Signature.model_validate({"inputs": [], "output": {"problem": "counts", "most": 3}})
    assert signature.problem.name == "counts"
    assert isinstance(signature.output, Output)
    assert signature.model_dump()["output"] == {"problem": "counts", "most": 3}
    assert Signature.model_validate_json(signature.model_dump_json()) == signature


def test_a_package_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "broken_for_test", "problems", "broken = broken_for_test:PROBLEM", "import nothing_here\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PlatformError, match="package broken_for_test cannot be loaded") as caught:
        get_problem("broken")
    assert "nothing_here" in str(caught.value.detail)


def test_ours_are_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "thief_for_test", "problems", "regression = thief_for_test:PROBLEM", "PROBLEM = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert get_problem("regression").name == "regression"


def test_an_unknown_room_is_refused_with_the_nearest() -> None:
    with pytest.raises(PlatformError, match="unknown problem 'regresion'") as caught:
        get_problem("regresion")
    assert caught.value.fix == "did you mean regression?"
    assert Rooms("engine", "contracts.engines", "ENGINE").names() == [
        "answers", "detector", "diffusers", "extractive", "flow", "lightgbm", "llamacpp", "onnx_image",
        "onnx_tabular", "onnx_text", "prompted", "recommend", "scorecard", "seq2seq", "tagger", "torch_text",
    ]  # fmt: skip
