"""Texts: their words, language, repetition and passages; and the engine that answers with passages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.bundle import Bundle
from contracts.engines import load_engine
from contracts.engines.extractive import ExtractSpec, centrality, extract
from contracts.errors import PlatformError
from contracts.passages import Unit, joined, passages
from contracts.texts import common, described, refuses, repetition, words
from tests.problem_bundles import extracts


@pytest.mark.parametrize(
    ("text", "unit", "found"),
    [
        ("Mr. A. Ito paid 3.50 at 5 p.m. Why! He", "sentence", ["Mr. A. Ito paid 3.50 at 5 p.m. Why!", "He"]),
        ('She said "Go." Then... he went', "sentence", ['She said "Go."', "Then...", "he went"]),
        ("今天。“明天晴！”他说，约30.5度.后天", "sentence", ["今天。", "“明天晴！”", "他说，约30.5度.", "后天"]),
        ("first line\nsecond one. And more", "sentence", ["first line", "second one.", "And more"]),
        ("采用MRP,建立了模型;结果1,000个。", "clause", ["采用MRP", "建立了模型", "结果1,000个"]),
        (" Hi. You?\n...\n\n Fine. ", "line", ["Hi. You?", "...", "Fine."]),
        ("?! ... 。。 —", "sentence", []),
        ("", "sentence", []),
    ],
)  # fmt: skip
def test_passages(text: str, unit: Unit, found: list[str]) -> None:
    assert passages(text, unit) == found


def test_passages_are_joined_as_their_language_does() -> None:
    assert joined(["It rained.", "“Yes.”", "He left."], "sentence") == "It rained. “Yes.” He left."
    assert joined(["今天下雨。", "1100座钟。"], "sentence") == "今天下雨。1100座钟。"
    assert joined(["a", "b"], "line") == "a\nb"


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="aB1.。!，, \n“”年字…", max_size=80), st.sampled_from(["sentence", "clause", "line"]))
def test_passages_are_parts_of_the_text_in_their_order(text: str, unit: Unit) -> None:
    at = 0
    for part in passages(text, unit):
        assert part == part.strip() != ""
        at = text.index(part, at) + len(part)


def test_shortened_words_end_no_sentence_however_many_there_are() -> None:
    assert len(passages("Mr. " * 12_500, "sentence")) == 1


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="abc", max_size=12), st.text(alphabet="abc", max_size=12))
def test_the_longest_common_subsequence_is_that_of_the_table(first: str, second: str) -> None:
    table = np.zeros((len(first) + 1, len(second) + 1), int)
    for i, a in enumerate(first, 1):
        for j, b in enumerate(second, 1):
            table[i, j] = table[i - 1, j - 1] + 1 if a == b else max(table[i - 1, j], table[i, j - 1])
    assert common(first, second) == table[-1, -1]


def test_words_and_repetition() -> None:
    assert words("It's 2026, 你好 World_1") == ["it", "s", "2026", "你", "好", "world", "1"]
    assert repetition(words("one two three four")) == 0
    assert repetition(words("go on and on " * 4)) == pytest.approx(1 - 4 / 13)
    assert repetition([]) == 0


@pytest.mark.parametrize("text", [
    "I'm sorry, but I can’t help with that.", "As an AI model, I have no view.", "抱歉，我无法回答这个问题。",
])  # fmt: skip
def test_refusals(text: str) -> None:
    assert refuses(text)
    assert described(text)["refused"] == "yes"


@pytest.mark.parametrize("text", ["I can help you.", "The aid is late.", "公司表示不能接受该方案。", ""])
def test_what_is_no_refusal(text: str) -> None:
    assert not refuses(text)


def test_textrank_takes_what_the_others_are_like_in_the_order_of_the_text() -> None:
    text = "Hello there. The pump leaks oil. Oil of the pump is on the floor. The floor under the pump is wet. Bye."
    spec = ExtractSpec(method="textrank", passages=2, max_characters=500)
    assert extract(text, spec) == "Oil of the pump is on the floor. The floor under the pump is wet."
    chinese = "你好。水泵正在漏油。水泵漏油流到地面。地面上有水泵的油。再见。"
    assert extract(chinese, spec) == "水泵正在漏油。水泵漏油流到地面。"
    assert len(set(centrality(["a b c"] * 3))) == 1
    assert centrality(["one", "two"]) == [0.15, 0.15]


def test_scored_takes_the_passages_whose_signs_weigh_most_in_the_order_of_the_text() -> None:
    text = "We met today. In short: pumps leak. Nobody was hurt. In short: valves close."
    spec = ExtractSpec(method="scored", passages=2, max_characters=500, weights={"begins in short": 1.0})
    assert extract(text, spec) == "In short: pumps leak. In short: valves close."
    assert extract(text, spec.model_copy(update={"weights": {"last": 1.0, "place 2": 0.5}, "passages": 1})) == (
        "In short: valves close."
    )
    behind = ExtractSpec(method="scored", passages=1, max_characters=500, weights={"after today": 1.0})
    assert extract(text, behind) == "In short: pumps leak."


def test_textrank_compares_the_first_300_passages_only() -> None:
    spec = ExtractSpec(method="textrank", passages=1, max_characters=1_000_000)
    text = "Nothing here. " * 300 + "Pumps leak oil today. " * 3_000
    assert extract(text, spec) == "Nothing here."


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.sampled_from(["lead", "textrank", "scored"]), st.integers(1, 3))
def test_any_text_is_answered_within_its_limit(text: str, method: Any, number: int) -> None:
    safe = text.encode("utf-8", "replace").decode()
    weights = {"place 1": 1.0, "said again": -0.5, "begins the": 0.3}
    spec = ExtractSpec(method=method, passages=number, max_characters=60, weights=weights)
    found = extract(safe, spec)
    assert len(found) <= 60 + number
    assert found == extract(safe, spec)


def test_half_a_character_and_what_lies_behind_the_limit_are_cut(tmp_path: Path) -> None:
    engine = load_engine(extracts(tmp_path))
    given_ = np.array(["half \ud83d sign. Two.", "x" * 60_000, None], dtype=object)
    first, long, none = engine.predict({"text": given_}).tolist()
    assert (first, len(long), none) == ("half ?", 50_000, "")
    half, _, nothing = engine.explain({"text": given_}, 3)
    assert [(reason.feature, reason.contribution) for reason in half] == [("half ?", 1), ("sign.", 0), ("Two.", 0)]
    assert nothing == []


def test_parameters_that_no_engine_takes_are_refused(tmp_path: Path) -> None:
    bundle = extracts(tmp_path)
    (tmp_path / "other" / "model").mkdir(parents=True)
    (tmp_path / "other" / "model" / "extract.json").write_text(json.dumps({"method": "guess", "passages": 0}))
    with pytest.raises(PlatformError, match="text model refused") as caught:
        load_engine(Bundle(tmp_path / "other", bundle.document, ""))
    assert "method" in str(caught.value.detail)
