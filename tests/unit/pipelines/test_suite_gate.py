"""``gate.suite``: pinned by content, asked by the step evaluate, and required of a candidate beside the champion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contracts.bundle import Bundle
from contracts.endpoints import Endpoints
from contracts.engines import load_engine
from contracts.errors import PlatformError
from pipelines.checks import champion as champion_check
from pipelines.checks.base import Candidate, Finding
from pipelines.checks.evaluation import CHECK
from pipelines.suites.in_run import asked_suite, measure
from pipelines.task import GateConfig, SuiteGate
from pipelines.tasks import get_task, recipe_config
from tests.problem_bundles import extracts, tiny_chat

SUITE = """
suite: little
options: {max_tokens: 8}
tasks:
  - name: letters
    metrics: [contains]
    items:
      - {id: a, prompt: "say w", contains: [xyz]}
      - {id: b, prompt: "say v", contains: [wxyz]}
      - {id: c, prompt: "say t", contains: [no such]}
"""


@pytest.fixture
def suite(tmp_path: Path) -> str:
    file = tmp_path / "little.yaml"
    file.write_text(SUITE)
    return str(file)


def found(suite: str, told: Any, minimum: dict[str, float], **settings: Any) -> Finding:
    gate = GateConfig(suite=SuiteGate(name=suite, minimum=minimum), **settings)
    about: dict[str, Any] = {"folder": Path(), "dataset": Path(), "endpoints": Endpoints()}
    return CHECK.find(Candidate(task="chat", evaluation={"suite": told} if told else {}, settings=gate, **about))


def told(version: str, values: str) -> dict[str, Any]:
    """What a model is said to have shown: a value for each of many items."""
    rows = [{"id": f"i{at}", "task": "letters", "value": float(one)} for at, one in enumerate(values)]
    score = sum(map(float, values)) / len(values)
    return {"suite": {"version": version}, "metrics": {"score": score}, "rows": rows}


def test_a_run_is_configured_with_a_version_of_the_suite(suite: str) -> None:
    config = recipe_config(get_task("chat"), None, {"gate.suite.name": suite, "gate.suite.minimum.score": 0.5})
    assert config.gate.suite.version == asked_suite(config.gate.suite).version
    Path(suite).write_text(SUITE.replace("say w", "say u"))
    with pytest.raises(PlatformError) as caught:
        asked_suite(config.gate.suite)
    assert caught.value.code == "other_suite"


@pytest.mark.parametrize(
    ("task", "set_", "said"),
    [
        ("chat", {"gate.suite.minimum.scor": 0.5}, "letters.contains"),
        ("chat", {"gate.suite.name": "none"}, "neither a file nor one of ours"),
        ("news", {}, "its problem is classification"),
    ],
)
def test_a_gate_that_cannot_be_kept_is_refused_before_anything_is_read(
    suite: str, task: str, set_: dict[str, Any], said: str
) -> None:
    with pytest.raises(PlatformError) as caught:
        recipe_config(get_task(task), None, {"gate.suite.name": suite, **set_})
    assert said in caught.value.detail


def test_the_candidate_is_asked_in_its_own_run(suite: str, tmp_path: Path) -> None:
    bundle = tiny_chat(tmp_path)
    engine = load_engine(bundle, threads=1)
    found = measure(engine, bundle.document, SuiteGate(name=suite), lambda *_, **__: None)
    assert [row["value"] for row in found["rows"]] == [1, 1, 0]
    assert [row["answer"] for row in found["rows"]] == ["xyz", "wxyz", "uvwxyz"]
    assert found["metrics"]["score"] == pytest.approx(2 / 3)


def test_a_minimum_is_kept_missed_or_not_measured(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(champion_check, "find_champion", lambda *_: None)
    passed = {
        limit: [one.passed for one in found(suite, told("v", "110"), {"score": limit}).checks] for limit in (0.5, 0.9)
    }
    assert passed == {0.5: [True], 0.9: [False]}
    (check,) = found(suite, None, {"score": 0.0}).checks
    assert (check.value, check.passed) == (None, False)
    assert CHECK.find(Candidate(
        task="fraud", evaluation={}, settings=GateConfig(), folder=Path(), dataset=Path(), endpoints=Endpoints()
    )) == Finding()  # fmt: skip


@pytest.mark.parametrize(("ours", "passed"), [("1" * 30, True), ("1" * 15 + "0" * 15, False), ("1" * 29 + "0", True)])
def test_a_candidate_shown_to_be_worse_than_the_champion_does_not_pass(
    suite: str, ours: str, passed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion = extracts(tmp_path)
    monkeypatch.setattr(Bundle, "read_json", lambda *_: {"suite": told("v", "1" * 30)})
    monkeypatch.setattr(champion_check, "find_champion", lambda *_: ("chat:1", champion))
    (check,) = found(suite, told("v", ours), {}, champion_tolerance=0.0).checks
    assert (check.passed, check.against, check.rows_compared) == (passed, "chat:1", 30)
    assert check.interval is not None


def test_a_champion_that_was_not_asked_this_suite_is_asked(
    suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tiny_chat(tmp_path)
    monkeypatch.setattr(champion_check, "find_champion", lambda *_: ("chat:1", bundle))
    ours = {**told("v", "110"), "rows": [{"id": one, "task": "letters", "value": 1.0} for one in "abc"]}
    (check,) = found(suite, ours, {}).checks
    assert (check.value, check.difference) == (1, pytest.approx(1 / 3))
