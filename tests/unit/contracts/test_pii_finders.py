"""What has no form is found by a tagger, or by Presidio, and joins what patterns find."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from contracts.errors import PlatformError
from contracts.pii.finders import Place, open_finder, pinned
from contracts.pii.finding import find, find_all
from contracts.pii.redaction import Redactor, keys_of
from contracts.pii.tagged import TYPES, kind_named
from tests.problem_bundles import extracts, name_tagger


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    open_finder.cache_clear()
    yield
    open_finder.cache_clear()


class Told:
    """Says of each text that these values are in it."""

    name = "told"

    def __init__(self, *values: tuple[str, str]) -> None:
        self.values, self.asked = values, 0

    def places(self, texts: Any) -> list[list[Place]]:
        self.asked += 1
        return [
            [
                (text.index(one), text.index(one) + len(one), kind_named(kind))
                for one, kind in self.values
                if one in text
            ]
            for text in texts
        ]


def shown(text: str, finder: Told) -> list[tuple[str, str]]:
    return [(span.kind.name, text[span.start : span.end]) for span in find(text, finder=finder)]


def test_names_join_what_patterns_find_and_a_number_wins_over_a_name() -> None:
    text = "Anna Berg, 13812345678, in Turin"
    assert shown(text, Told(("Anna Berg", "name"), ("Turin", "place"), ("13812345678", "name"))) == [
        ("name", "Anna Berg"), ("phone", "13812345678"), ("place", "Turin"),
    ]  # fmt: skip


def test_what_is_longer_than_a_pattern_is_found_whole_and_what_is_beside_one_stays() -> None:
    text = "at 12 Main Street, Apt. 5, Berlin 10115 now"
    assert shown(text, Told(("12 Main Street, Apt. 5, Berlin 10115", "address"))) == [
        ("address", "12 Main Street, Apt. 5, Berlin 10115")
    ]
    assert shown("write ann@example.com (Ann Lee)", Told(("ann@example.com (Ann Lee", "organisation"))) == [
        ("email", "ann@example.com"), ("organisation", "Ann Lee"),
    ]  # fmt: skip


def test_places_are_those_of_the_text_as_it_was_written() -> None:
    text = "\u200bＡｎｎａ\u200b Berg came"
    (span,) = find(text, finder=Told(("Anna Berg", "name")))
    assert (text[span.start : span.end], span.value) == ("Ａｎｎａ\u200b Berg", "anna berg")


def test_kinds_are_chosen_and_many_texts_are_one_question() -> None:
    finder = Told(("Anna", "name"), ("Turin", "place"))
    found = find_all(["Anna", "Turin", "none"], kinds=["place"], finder=finder)
    assert [[span.kind.name for span in some] for some in found] == [[], ["place"], []]
    assert finder.asked == 1


@pytest.mark.parametrize(
    ("operator", "said"),
    [("label", "[NAME] of [ORGANISATION]"), ("mask", "**** of ** **"), ("drop", " of ")],
)
def test_operators_work_on_what_is_found(operator: str, said: str) -> None:
    finder = Told(("Anna", "name"), ("A1 AG", "organisation"))
    assert Redactor(operator, finder=finder).redact("Anna of A1 AG").text == said


def test_a_surrogate_of_a_name_is_the_same_everywhere_and_is_no_name_of_the_text() -> None:
    redactor = Redactor("surrogate", finder=Told(("王小明", "name")), keys=keys_of("k" * 32))
    first, second = (redactor.redact(text).text for text in ("王小明来了", "我见过王小明"))
    assert "王小明" not in first + second
    assert first.removesuffix("来了") == second.removeprefix("我见过")


def test_labels_that_were_written_are_not_found_again() -> None:
    assert shown("[PLACE] and [NAME]", Told(("PLACE", "organisation"), ("NAME", "name"))) == []


def test_a_bundle_is_a_finder_and_its_name_holds_it_to_what_it_was(tmp_path: Path) -> None:
    bundle = name_tagger(tmp_path, anna="PER", turin="GPE")
    finder = open_finder(str(bundle.path))
    assert finder is not None
    found = find("Anna lives in Turin", finder=finder)
    assert [(span.kind.name, span.value) for span in found] == [("name", "anna"), ("place", "turin")]
    where = pinned(str(bundle.path))
    assert open_finder(where) is not None
    assert where.partition("#")[2] == finder.name
    with pytest.raises(PlatformError, match="is not the tagger that the data were treated by") as caught:
        open_finder(f"{bundle.path}#other@0123")
    assert caught.value.code == "bad_tagger"


def test_what_is_no_tagger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="is no tagger"):
        open_finder(str(extracts(tmp_path / "a").path))
    with pytest.raises(PlatformError, match="finds 'COLOUR', which is no kind of personal data") as caught:
        open_finder(str(name_tagger(tmp_path / "b", red="COLOUR").path))
    assert "PERSON" in caught.value.detail
    with pytest.raises(PlatformError, match=r"bundle\.json is missing"):
        open_finder(str(tmp_path))
    assert open_finder("") is None
    assert pinned("") == ""


def test_every_type_of_a_model_is_a_kind() -> None:
    assert {kind_named(name).name for name in TYPES.values()} == set(TYPES.values())
    assert not any(kind_named(name).stops for name in TYPES.values())


def stand_in(
    monkeypatch: pytest.MonkeyPatch, found: list[tuple[str, int, int, float]], fails: Exception | None = None
) -> Any:
    """A module in Presidio's place, of the same call and the same answer."""
    module, asked = ModuleType("presidio_analyzer"), SimpleNamespace(texts=[], languages=None)

    class AnalyzerEngine:
        def __init__(self, supported_languages: list[str]) -> None:
            if fails:
                raise fails
            self.supported_languages = asked.languages = supported_languages

        def get_supported_entities(self, language: str) -> list[str]:
            return ["EMAIL_ADDRESS", "PERSON", "LOCATION", "US_ITIN", "URL"]

        def analyze(self, text: str, language: str, entities: list[str]) -> list[Any]:
            asked.texts.append((text, language))
            assert entities == ["PERSON", "LOCATION"]  # others fetch from the internet, or are no kind here
            return [SimpleNamespace(entity_type=kind, start=a, end=b, score=score) for kind, a, b, score in found]

    class AnalyzerEngineProvider:
        def __init__(self, analyzer_engine_conf_file: str) -> None:
            asked.file = analyzer_engine_conf_file

        def create_engine(self) -> AnalyzerEngine:
            return AnalyzerEngine(["es"])

    module.AnalyzerEngine, module.AnalyzerEngineProvider = AnalyzerEngine, AnalyzerEngineProvider  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "presidio_analyzer", module)
    return asked


def test_presidio_is_a_finder_for_those_who_have_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = [("PERSON", 0, 9, 0.8), ("PERSON", 5, 9, 0.85), ("LOCATION", 13, 18, 0.7), ("US_ITIN", 0, 4, 0.9)]
    asked = stand_in(monkeypatch, found)
    finder = open_finder("presidio:de")
    assert finder is not None
    assert [(start, end, kind.name) for start, end, kind in finder.places(["Anna Berg in Turin"])[0]] == [
        (5, 9, "name"), (13, 18, "place"),
    ]  # fmt: skip
    assert (asked.texts, asked.languages) == ([("Anna Berg in Turin", "de")], ["de"])
    assert finder.name.endswith("-de")
    (tmp_path / "own.yaml").write_text("supported_languages: [es]")
    other = open_finder(f"presidio:{tmp_path / 'own.yaml'}")
    assert other is not None
    assert other.places(["x"]) != [[]]
    assert (asked.file, asked.texts[-1]) == (str(tmp_path / "own.yaml"), ("x", "es"))
    assert other.name != finder.name


def test_without_presidio_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(PlatformError, match="Presidio cannot be used here") as caught:
        open_finder("presidio")
    assert caught.value.code == "missing_package"
    assert "pip install presidio-analyzer" in caught.value.fix
    stand_in(monkeypatch, [], fails=OSError("[E050] Can't find model 'en_core_web_lg'"))
    with pytest.raises(PlatformError, match="en_core_web_lg"):
        open_finder("presidio")
