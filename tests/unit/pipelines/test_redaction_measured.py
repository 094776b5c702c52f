"""What a run says about how well personal data is found, and what the gate asks of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.errors import PlatformError
from contracts.pii.finders import open_finder
from pipelines.checks.redaction import CHECK
from pipelines.evaluation.redaction import compared, measure
from pipelines.gate_limits import RedactionLimits
from pipelines.pages.card import render_card
from pipelines.task import DataConfig, GateConfig
from tests.chain import Chain
from tests.problem_bundles import name_tagger

TEXTS = ["call 13812345678 or ann@example.com", "Anna Berg lives here", "nothing at all"]
SPANS: list[list[tuple[int, int, str]]] = [[(5, 16, "phone"), (20, 35, "email")], [(0, 9, "name")], []]


def written(folder: Path, spans: Any = SPANS) -> str:
    lines = [json.dumps({"text": text, "spans": some}) for text, some in zip(TEXTS, spans, strict=True)]
    (folder / "labelled.jsonl").write_text("\n".join(lines))
    return str(folder / "labelled.jsonl")


def test_kinds_with_a_form_are_found_and_names_leak_without_a_tagger(tmp_path: Path) -> None:
    told = measure(DataConfig(pii_labelled=written(tmp_path)))
    assert (told["texts"], told["finder"]) == (3, "")
    kinds = told["kinds"]
    assert list(kinds) == ["email", "name", "phone", "all"]
    assert kinds["phone"] == {"there": 1, "said": 1, "hit": 1, "recall": 1, "precision": 1, "f1": 1, "leaked": 0}
    assert kinds["name"] == {"there": 1, "said": 0, "hit": 0, "recall": 0, "precision": None, "f1": 0, "leaked": 1}
    assert kinds["all"]["recall"] == pytest.approx(2 / 3)
    assert kinds["all"]["leaked"] == pytest.approx(9 / 35)
    assert "Anna" not in json.dumps(told)


def test_a_tagger_finds_them_and_is_named(tmp_path: Path) -> None:
    open_finder.cache_clear()
    tagger = str(name_tagger(tmp_path, anna="PERSON", berg="PERSON").path)
    spans = [SPANS[0], [[0, 9, "PERSON"]], []]  # by what a tagger calls it
    told = measure(DataConfig(pii_labelled=written(tmp_path, spans), tagger=tagger))
    assert told["kinds"]["all"]["f1"] == 1
    assert told["finder"].startswith("tagging@")


def test_half_of_a_span_is_enough_and_what_is_not_labelled_anywhere_is_no_error() -> None:
    truth = [[(5, 20, "phone")], [], []]
    found = compared(TEXTS, truth)
    assert (found["phone"]["hit"], found["phone"]["leaked"]) == (1, pytest.approx(4 / 15))
    assert found["all"]["precision"] == 1  # the e-mail is of a kind that these labels do not have
    assert compared(TEXTS, [[(5, 35, "phone")], [], []])["phone"]["hit"] == 0


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('{"body": "x"}', "has no column 'text'"),
        ('{"text": "Ann", "spans": "Ann"}', "row 1: spans is no list of spans"),
        ('{"text": "Ann", "spans": [[0, 3, "COLOUR"]]}', "row 1: 'COLOUR' is no kind of personal data"),
        ('{"text": "Ann", "spans": []}', "labels nothing"),
    ],
)
def test_a_file_that_labels_nothing_is_refused_without_its_texts(tmp_path: Path, lines: str, said: str) -> None:
    (tmp_path / "labelled.jsonl").write_text(lines)
    with pytest.raises(PlatformError, match=said) as caught:
        measure(DataConfig(pii_labelled=str(tmp_path / "labelled.jsonl")))
    assert "Ann" not in str(caught.value).replace('"I am Ann"', "")


def judged(limits: RedactionLimits, told: Any) -> Any:
    return CHECK.find(SimpleNamespace(settings=GateConfig(redaction=limits), evaluation={"redaction": told}))  # type: ignore[arg-type]


def test_the_gate_holds_limits_by_kind_and_what_was_not_measured_is_not_kept(tmp_path: Path) -> None:
    told = measure(DataConfig(pii_labelled=written(tmp_path)))
    found = judged(RedactionLimits(recall={"phone": 0.95, "name": 0.9, "iban": 0.9}, leaked={"all": 0.3}), told)
    assert {check.metric: check.passed for check in found.checks} == {
        "redaction:phone:recall": True,
        "redaction:name:recall": False,
        "redaction:iban:recall": False,
        "redaction:all:leaked": True,
    }
    assert found.notes == ["gate.redaction: no text of data.pii_labelled has 'iban'"]
    assert not judged(RedactionLimits(recall={"phone": 0.5}), None).checks[0].passed
    assert judged(RedactionLimits(), None).checks == []


def test_a_run_shows_it_in_the_card_and_is_refused_below_a_limit(tmp_path: Path) -> None:
    given = {"data.pii_labelled": written(tmp_path), "gate.redaction.recall.name": 0.9}
    chain = Chain(task="summaries", home=tmp_path / "home", overrides=given)
    chain.dataset()
    folder = chain.candidate()
    card = render_card(folder, json.loads((folder / "candidate.json").read_text()), "summaries")
    assert "Personal data: what is found" in card
    assert "<td>name</td>" in card
    assert "Anna Berg" not in card
    ends = chain.endpoints.model_dump_json()
    chain.call("gate", chain.path("dataset"), folder, ends, chain.path("gate.json"))
    decision = json.loads(chain.path("gate.json").read_text())
    assert [one["metric"] for one in decision["checks"] if not one["passed"]] == ["redaction:name:recall"]
