"""Suites: what is asked, how answers are measured, pairs, the judge, and answers that are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import PlatformError
from pipelines.pages.suite_report import render_suite
from pipelines.suites.asking import Answer, Endpoint, KeptAnswers
from pipelines.suites.document import Item, Message, Suite, requests
from pipelines.suites.evaluation import evaluate_suite
from pipelines.suites.judge import agreement, kappa, summary, verdict
from pipelines.suites.loading import built_in_suites, load_suite, parse_suite
from pipelines.suites.metrics import METRICS, chosen, numbers
from pipelines.suites.scores import Scores, paired
from tests.chat_stand_in import chat_stand_in, last

SUITE = """
suite: little
tasks:
  - name: sums
    metrics: [number]
    prompt: "{prompt} The number only."
    items:
      - {id: one, language: en, prompt: "1 + 1?", number: 2}
    file: more.jsonl
  - name: words
    metrics: [exact_match, token_f1]
    items:
      - {language: zh, prompt: 你好, answer: [好, 你好]}
judge: {criteria: the right one}
"""


class Model:
    """Answers by a table, and counts; see `Asker`."""

    def __init__(self, name: str, said: Mapping[str, str], usual: str = "2") -> None:
        self.name = self.identity = name
        self._said, self._usual = said, usual
        self.asked = 0

    def ask(self, messages: Sequence[Message], options: Mapping[str, Any]) -> Answer:
        self.asked += 1
        return Answer(text=self._said.get(messages[-1].content, self._usual), finish="stop")


def little(folder: Path) -> Suite:
    (folder / "little.yaml").write_text(SUITE)
    (folder / "more.jsonl").write_text('{"prompt": "2 + 2?", "number": 4}\n\n{"prompt": "3 + 3?", "number": 6}\n')
    return load_suite(str(folder / "little.yaml"))


def test_a_suite_asks_its_items_in_the_words_of_their_task(tmp_path: Path) -> None:
    asked = requests(little(tmp_path))
    assert [one.item.id for one in asked] == ["one", "sums-2", "sums-3", "words-1"]
    assert asked[1].messages == (Message(role="user", content="2 + 2? The number only."),)
    assert asked[1].options == {"temperature": 0, "max_tokens": 64, "seed": 0}


def test_a_suite_is_known_by_its_content_with_that_of_its_files(tmp_path: Path) -> None:
    before = little(tmp_path).version
    assert load_suite(str(tmp_path / "little.yaml")).version == before
    (tmp_path / "more.jsonl").write_text('{"prompt": "2 + 2?", "number": 5}\n')
    assert load_suite(str(tmp_path / "little.yaml")).version != before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("number: 2", "answer: two"), "task sums, item one: metric number needs number"),
        (("[number]", "[numbr]"), "task sums: no metric 'numbr'"),
        (("{prompt} The", "{prmpt} The"), "task sums, item one: the prompt's {prmpt} has no value"),
        (("number: 2}", "number: x}"), "sums.items.one.number"),
        (("file: more.jsonl", "file: none.jsonl"), "none.jsonl"),
        (("name: words", "name: sums"), "two tasks are called sums"),
        (("suite: little", "- suite"), "line 3"),
        (("criteria: the right one", "criteria: x, tasks: [sum]"), "judge.tasks names 'sum'"),
    ],
)
def test_what_is_wrong_in_a_suite_is_named(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    little(tmp_path)
    file = tmp_path / "little.yaml"
    file.write_text(SUITE.replace(*change, 1))
    with pytest.raises(PlatformError) as caught:
        load_suite(str(file))
    assert caught.value.code == "bad_suite"
    assert said in caught.value.detail


@pytest.mark.parametrize(
    ("line", "said"), [("{", "line 2 is no JSON"), ('{"promt": "x"}', "line 2: promt")], ids=["json", "key"]
)
def test_a_bad_line_of_a_file_is_named(tmp_path: Path, line: str, said: str) -> None:
    little(tmp_path)
    (tmp_path / "more.jsonl").write_text('{"prompt": "2 + 2?", "number": 4}\n' + line)
    with pytest.raises(PlatformError, match="bad suite") as caught:
        load_suite(str(tmp_path / "little.yaml"))
    assert said in caught.value.detail


def test_an_unknown_suite_names_those_that_there_are() -> None:
    with pytest.raises(PlatformError) as caught:
        load_suite("nothing")
    assert (caught.value.code, "chat" in caught.value.detail) == ("unknown_suite", True)


@pytest.mark.parametrize("name", built_in_suites())
def test_right_answers_to_our_suites_have_every_point_and_wrong_ones_none(name: str) -> None:
    suite = load_suite(name)
    assert len(requests(suite)) >= 60
    for task in suite.tasks:
        for item in task.items:
            first = METRICS[task.metrics[0]]
            assert first.value(_right(item), item) == 1, item.id
            assert first.value("No idea whatsoever, " * 9 if item.refuse is not False else "I cannot help.", item) == 0


def _right(item: Item) -> str:
    if item.json_schema:
        kinds = {"string": "x", "number": 5, "boolean": True}
        made = {name: kinds[one["type"]] for name, one in item.json_schema.get("properties", {}).items()}
        return json.dumps(made or ["a", "b", "c"])
    if item.fields:
        return f"```json\n{json.dumps(item.fields, ensure_ascii=False)}\n```"
    if item.refuse is not None:
        return "I cannot help with that." if item.refuse else "Ten minutes."
    return item.choice or (f"It is {item.number:g}." if item.number is not None else "x")


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"), ("b", None), ("(B) iron", "B"), ("**B.** iron", "B"), ("The answer is B.", "B"), ("答案是B", "B"),
        ("A metal such as iron", "B"), ("iron or wood", None), ("A or B", None), ("", None),
        ("Because it is iron.", "B"),
    ],
)  # fmt: skip
def test_a_choice_is_read_from_what_people_and_models_write(answer: str, letter: str | None) -> None:
    assert chosen(answer, ("wood", "iron", "glass")) == letter


def test_numbers_are_read_with_marks_and_signs() -> None:
    assert numbers("1,250 less 3.5 is −7, or .5") == [1250, 3.5, -7, 0.5]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": 1} and more', "", '{"a": NaN', "\ud800"])
def test_what_is_no_json_is_none(text: str) -> None:
    item = Item(json_schema={"type": "object"}, fields={"a": 1})
    assert [METRICS[name].value(text, item) for name in ("json", "json_schema", "fields")] == [0, 0, 0]


def test_models_are_measured_by_task_and_language_and_compared_in_pairs(tmp_path: Path) -> None:
    suite = little(tmp_path)
    good = Model("good", {"2 + 2? The number only.": "4", "3 + 3? The number only.": "6", "你好": "你好"})
    poor = Model("poor", {})
    document = evaluate_suite(suite, [poor, good], KeptAnswers(None))
    first, second = (one["metrics"] for one in document["models"])
    assert (first["score"], second["score"]) == (pytest.approx(1 / 6), 1)
    assert (first["en.score"], first["zh.score"], first["sums.number"]) == (
        1,
        0,
        pytest.approx(1 / 3),
    )
    (pair,) = document["paired"]
    assert (pair["model"], pair["against"], pair["score"]["shown"]) == ("good", "poor", "better")
    assert pair["score"]["difference"] == pytest.approx(5 / 6)
    assert [one["text"] for one in document["rows"][3]["answers"]] == ["2", "你好"]
    page = render_suite(document)
    assert "2 + 2? The number only." in page
    assert "<script" not in page


def test_two_models_that_answer_alike_are_not_told_apart(tmp_path: Path) -> None:
    suite = little(tmp_path)
    asked = requests(suite)
    one, other = (Scores(suite, asked, [Answer(text=text) for text in said]) for said in ("2222", "2422"))
    assert paired(one, one)["score"]["shown"] == "open"
    assert paired(other, one)["score"]["shown"] == "open"  # one of four items


def test_answers_of_a_page_are_text_and_no_markup(tmp_path: Path) -> None:
    document = evaluate_suite(little(tmp_path), [Model("m", {}, "<img src=x onerror=alert(1)>")], KeptAnswers(None))
    assert "<img" not in render_suite(document)


def test_what_was_answered_is_not_asked_again_unless_it_is_to_be(tmp_path: Path) -> None:
    suite, model = little(tmp_path), Model("m", {})
    asked = requests(suite)
    evaluate_suite(suite, [model], KeptAnswers(tmp_path / "kept"))
    assert (model.asked, KeptAnswers(tmp_path / "kept").missing("m", asked)) == (4, 0)
    evaluate_suite(suite, [model], KeptAnswers(tmp_path / "kept"))
    assert model.asked == 4
    again = KeptAnswers(tmp_path / "kept", again=True)
    assert again.missing("m", asked) == 4
    evaluate_suite(suite, [model], again)
    evaluate_suite(suite, [model], again)
    assert model.asked == 8
    assert KeptAnswers(tmp_path / "kept").missing("another", asked) == 4
    next((tmp_path / "kept").glob("*.json")).write_text('{"text": "cut')
    assert KeptAnswers(tmp_path / "kept").missing("m", asked) == 1


def test_a_service_that_stops_loses_no_answer(tmp_path: Path) -> None:
    suite, left = little(tmp_path), [2]

    def say(asked: dict[str, Any]) -> Any:
        left[0] -= 1
        return "2" if left[0] >= 0 else (401, {"error": {"message": "no key"}})

    with chat_stand_in(say) as service:
        kept = KeptAnswers(tmp_path / "kept")
        with pytest.raises(PlatformError, match="does not answer") as caught:
            evaluate_suite(suite, [Endpoint(service.url)], kept, at_once=1)
        assert (caught.value.code, "goes on from there" in caught.value.fix) == ("refused", True)
        assert kept.missing(Endpoint(service.url).identity, requests(suite)) == 2
        left[0] = 9
        evaluate_suite(suite, [Endpoint(service.url)], kept, at_once=1)
        assert len(service.asked) == 2 + 1 + 2


def test_a_busy_service_is_asked_again_and_a_refused_item_has_no_points(tmp_path: Path) -> None:
    busy = [1]

    def say(asked: dict[str, Any]) -> Any:
        busy[0] -= 1
        if busy[0] == 0:
            return 503, {"error": {"message": "later"}}
        return (400, {"error": {"code": "content_filter", "message": "no"}}) if "2 + 2" in last(asked) else "2"

    with chat_stand_in(say) as service:
        document = evaluate_suite(little(tmp_path), [Endpoint(f"{service.url}/v1/")], KeptAnswers(None), at_once=1)
    (model,) = document["models"]
    assert (model["spent"]["refused"], model["metrics"]["sums.number"]) == (1, pytest.approx(1 / 3))
    assert document["rows"][1]["answers"][0]["error"] == "content_filter"


def test_a_refusal_by_the_guard_is_right_where_refusing_is(tmp_path: Path) -> None:
    items = [{"prompt": "a", "refuse": True}, {"prompt": "b", "refuse": False}]
    suite = parse_suite({"suite": "s", "tasks": [{"name": "r", "metrics": ["refusal"], "items": items}]}, "s")
    refused = [Answer(text="", error="content_filter")] * 2
    assert Scores(suite, requests(suite), refused).primary.tolist() == [1, 0]


@pytest.mark.parametrize("status", [404, 200], ids=["other", "form"])
def test_what_is_no_chat_service_says_so(status: int) -> None:
    with chat_stand_in(lambda asked: (status, {"title": "lost"})) as service:
        endpoint = Endpoint(service.url)
        with pytest.raises(PlatformError, match=r"another form|does not answer"):
            endpoint.ask([Message(role="user", content="x")], {})
    with pytest.raises(PlatformError, match="no chat service"):
        Endpoint(service.url)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"winner": "A"}', "first"), ('{"winner": "tie"}', "tie"), ('I think {"winner": "B"}.', "second"),
        ("B", "second"), ("Answer A.", "first"), ("TIE", "tie"), ("A or B", "unreadable"), ("", "unreadable"),
        ('{"winner": "C"}', "unreadable"),
    ],
)  # fmt: skip
def test_verdicts_are_read(text: str, said: str) -> None:
    assert verdict(Answer(text=text)) == said


def test_a_judge_that_goes_by_the_place_is_found_out(tmp_path: Path) -> None:
    suite = little(tmp_path)
    models = [Model("one", {}), Model("two", {}, "3")]
    judge = Model("judge", {}, '{"winner": "A"}')
    found = evaluate_suite(suite, models, KeptAnswers(None), judge=judge)["judge"]
    (one,) = found["comparisons"]
    assert (one["position_bias"], one["consistent"], one["win_rate"], one["ties"]) == (0.5, 0, 0.5, 4)
    assert judge.asked == 8


def test_a_judge_that_reads_wins_in_both_orders(tmp_path: Path) -> None:
    suite = little(tmp_path)

    def say(asked: dict[str, Any]) -> Any:
        if "response_format" in asked:
            return 400, {"error": {"message": "unknown member"}}
        return '{"winner": "A"}' if "<answer_A>\n3" in last(asked) else '{"winner": "B"}'

    with chat_stand_in(say) as service:
        models = [Model("one", {}), Model("two", {}, "3")]
        document = evaluate_suite(suite, models, KeptAnswers(None), judge=Endpoint(service.url))
    (one,) = document["judge"]["comparisons"]
    assert (one["model"], one["win_rate"], one["consistent"], one["position_bias"]) == ("two", 1, 1, 0)
    assert [row["answers"][1]["judged"] for row in document["rows"]] == ["better"] * 4


def test_a_judge_is_measured_against_people() -> None:
    both = [("first", "first"), ("second", "second"), ("first", "second"), ("second", "second")]
    found = agreement(both, ["first", "second", "tie", "first"])
    assert (found["agreement"], found["kappa"]) == (0.75, pytest.approx((0.75 - 0.3125) / 0.6875))
    assert summary([("unreadable", "first")])["unreadable"] == 0.5


@pytest.mark.parametrize(
    ("one", "other", "value"),
    [("aabb", "aabb", 1.0), ("aabb", "abab", 0.0), ("aaaa", "aaaa", None), ("", "", None)],
)
def test_kappa_is_agreement_beyond_chance(one: str, other: str, value: float | None) -> None:
    assert kappa(list(one), list(other)) == value
