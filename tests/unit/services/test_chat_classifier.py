"""The trained part of the guard: windows, classes and what becomes of them, languages, and answers while they come."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import PlatformError
from services.chat import guard as guards
from services.chat.classifier import STEP, WINDOW, Classifier
from services.chat.guard import Guard, Verdict, Watcher
from services.settings import GuardSettings
from tests.problem_bundles import extracts, name_tagger


class Words:
    """A classifier that goes by words, and keeps what it was asked. See `Classifier`."""

    classes = ("harmless", "injection", "toxic")
    bundle = "words 123"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def likely(self, text: str) -> dict[str, float]:
        self.asked.append(text)
        found = {"injection": 0.9 if "forget" in text else 0.1, "toxic": 0.8 if "fool" in text else 0.0}
        return {"harmless": 1 - max(found.values()), **found}


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> Words:
    made = Words()
    monkeypatch.setattr(guards, "classifier_of", lambda folder: made)
    return made


def guard(**given: Any) -> Guard:
    return Guard(GuardSettings.model_validate(given))


def test_classes_are_noted_unless_settings_say_otherwise(words: Words) -> None:
    plain = guard(classifier="x")
    assert plain.names[-3:] == ["class:harmless", "class:injection", "class:toxic"]
    assert plain.judged("you fool") == [Verdict("class:toxic", False)]
    assert plain.judged("hello") == []
    strict = guard(classifier="x", classes={"injection": "refuse", "toxic": "off"})
    assert strict.judged("forget it, fool") == [Verdict("class:injection", True)]
    assert guard(classifier="x", threshold=0.85).judged("you fool") == []
    assert guard(classifier="x", classes={"harmless": "refuse"}).judged("hello") == [Verdict("class:harmless", True)]


def test_orders_are_looked_for_in_messages_only(words: Words) -> None:
    made = guard(classifier="x", classes={"injection": "refuse"})
    assert made.judged("forget it", answer=True) == []
    assert (made.passed("forget it", []), made.passed("forget it", [], answer=True)) == (None, "forget it")


def test_a_class_that_the_classifier_does_not_have_is_refused(words: Words) -> None:
    with pytest.raises(PlatformError) as caught:
        guard(classifier="x", classes={"politics": "refuse"})
    assert "harmless, injection, toxic" in caught.value.detail
    with pytest.raises(PlatformError, match="politics"):
        guard(classes={"politics": "refuse"})


@pytest.mark.parametrize(
    ("text", "refused"),
    [("Guten Tag, wie geht's", False), ("你好，请帮我", True), ("12:30", False), ("", False), ("здравствуйте", True)],
)
def test_other_languages_than_those_allowed_are_refused(text: str, refused: bool) -> None:
    made = guard(languages=["en"], other_language="refuse")
    assert [one.refuse for one in made.judged(text)] == [True] * refused


def test_an_answer_is_judged_in_windows_and_holds_nothing_back(words: Words) -> None:
    watcher = Watcher(guard(classifier="x", personal="off", secrets="off"))
    pieces = ["word "] * 300
    assert [watcher.feed(piece) for piece in pieces] == pieces
    watcher.feed("", last=True)
    assert len(words.asked) == len("".join(pieces)) // STEP
    assert max(map(len, words.asked)) == WINDOW
    assert watcher.hits == []


def test_an_answer_ends_in_the_window_that_is_refused(words: Words) -> None:
    watcher = Watcher(guard(classifier="x", classes={"toxic": "refuse"}, personal="mask"))
    told = [watcher.feed(piece) for piece in ["word "] * 40 + ["fool "] + ["word "] * 200]
    assert "".join(told).count("word") < 110  # the window ends after 100 words
    assert (watcher.refused, watcher.hits) == (True, ["class:toxic"])
    short = Watcher(guard(classifier="x", classes={"toxic": "refuse"}))
    assert (short.feed("you fool"), short.feed("", last=True), short.refused) == ("you fool", "", True)


def test_a_decision_is_logged_by_its_rule_without_the_text(words: Words, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="fairlead.service"):
        guard(classifier="x").decided("before", "class:toxic", "refuse")
    (record,) = caplog.records
    assert record.__dict__["fields"] == {
        "side": "before", "rule": "class:toxic", "action": "refuse", "classifier": "words 123"
    }  # fmt: skip


def test_a_long_text_is_judged_by_its_worst_window(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def of(self: Classifier, window: str) -> list[float]:
        asked.append(window)
        return [0.0, 1.0] if "forget" in window else [1.0, 0.0]

    monkeypatch.setattr(
        Classifier, "__init__", lambda self, folder: setattr(self, "classes", ("harmless", "injection"))
    )
    monkeypatch.setattr(Classifier, "_of", of)
    text = "x" * 1_190 + "forget" + "x" * 900
    assert Classifier("").likely(text) == {"harmless": 1.0, "injection": 1.0}
    assert {"".join(text[at] for at in range(len(text)))} == {
        asked[0] + "".join(one[WINDOW - STEP :] for one in asked[1:])
    }
    asked.clear()
    assert Classifier("").likely("hi") == {"harmless": 1.0, "injection": 0.0}
    assert asked == ["hi"]


@pytest.mark.parametrize("made", [extracts, name_tagger])
def test_a_bundle_that_classifies_no_text_is_refused(made: Any, tmp_path: Path) -> None:
    with pytest.raises(PlatformError) as caught:
        Classifier(str(made(tmp_path).path))
    assert (caught.value.code, "fairlead run guard" in caught.value.fix) == ("bad_classifier", True)
