"""fairness: groups from a file, joined to the log and its labels; limits are the gate's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from contracts.bundle import BundleDocument
from contracts.endpoints import Endpoints
from services.feedback import layout
from services.feedback.line_file import append
from services.feedback.records import Label, Prediction, line_of
from services.feedback.writing import write_labels
from tests.unit.deploy.conftest import Said

NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
IDS = [f"{int(NOW.timestamp() * 1000):012x}{number:020x}" for number in range(120)]
LIMIT = {"metric": "sex:selection_ratio", "rule": "at least", "value": 0.9, "limit": 0.8, "passed": True}
DOCUMENT = {
    "name": "loans",
    "task": "loans",
    "recipe": "scorecard",
    "modality": "tabular",
    "engine": "scorecard",
    "signature": {"inputs": [{"name": "income", "dtype": "float64"}], "classes": ["repaid", "default"]},
    "gate": {"passed": True, "checks": [LIMIT]},
    "lineage": {"code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": "2026-01-01"},
    "files": {},
}


class OneModel:
    """A registry with version 3 of the model."""

    evaluation: ClassVar[Any] = {"fairness": {"good": "repaid", "least": 20}}

    def __init__(self, endpoints: object) -> None:
        pass

    def resolve(self, ref: str) -> Any:
        return SimpleNamespace(name="loans", version="3")

    def fetch(self, ref: str) -> Any:
        document = BundleDocument.model_validate(DOCUMENT)
        return SimpleNamespace(document=document, read_json=lambda name: self.evaluation)


@pytest.fixture
def people(endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file of sexes, and a log in which 60 men and 60 women ask: 45 and 30 get a loan, and half have labels."""
    monkeypatch.setattr("contracts.registry.Registry", OneModel)
    folder = endpoints.uri("predictions")
    lines = ["id,sex"]
    for number, one in enumerate(IDS):
        man = number < 60
        got = number % 60 < (45 if man else 30)
        label = "repaid" if got else "default"
        record = Prediction(
            id=one,
            time=NOW,
            model="loans",
            version="3",
            digest="",
            answer={"label": label, "score": 0.5, "probabilities": [0.75 if got else 0.25, 0.25 if got else 0.75]},
            inputs={"income": 1.0},
            entities={},
            flags=(),
            latency_ms=1.0,
            schema=2,
        )
        append(Path(layout.home(folder, "loans")) / f"{NOW:%Y-%m-%d}.a-1.jsonl", line_of(record))
        lines.append(f"{one},{'m' if man else 'w'}")
    given = [Label(id=one, label="repaid", time=NOW) for one in IDS[::2]]
    write_labels(folder, "loans", given)
    file = tmp_path / "people.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_limit_of_the_gate_that_is_not_kept_is_said(people: Path, fairlead: Callable[..., Said]) -> None:
    said = fairlead("fairness", "loans", "--groups", str(people), "--json")
    assert said.code == 3
    assert (said.json["rows"], said.json["with_group"], said.json["labelled"]) == (120, 120, 60)
    sex = said.json["columns"]["sex"]
    assert sex["selection_ratio"] == pytest.approx(30 / 45)
    men, women = sex["groups"]
    assert (men["rows"], men["labelled"], women["labelled"]) == (60, 30, 30)
    assert men["tpr"]["value"] == pytest.approx(23 / 30)
    assert said.json["checks"] == [{**LIMIT, "value": pytest.approx(30 / 45), "passed": False, "sure": False}]


def test_people_whom_the_file_does_not_know_are_left_out(people: Path, fairlead: Callable[..., Said]) -> None:
    people.write_text("id,sex\n" + "\n".join(f"{one},m" for one in IDS[:30]) + f"\n{IDS[30]},\nunknown,w\n")
    said = fairlead("fairness", "loans", "--groups", str(people), "--json")
    assert said.code == 0
    assert (said.json["rows"], said.json["with_group"]) == (120, 31)
    assert said.json["columns"]["sex"]["note"] == "only one group: m"
    assert "not measured yet" in fairlead("fairness", "loans", "--groups", str(people)).out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sex\nm\n", "has no column id"),
        ("id,sex\na,m\na,w\n", "has the id 'a' twice"),
        ("id\na\n", "no column of a group"),
    ],
)
def test_a_file_that_is_none_is_refused(people: Path, fairlead: Callable[..., Said], text: str, said: str) -> None:
    people.write_text(text)
    found = fairlead("fairness", "loans", "--groups", str(people))
    assert found.code == 1
    assert said in found.err


def test_a_model_without_groups_is_named(
    people: Path, fairlead: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OneModel, "evaluation", {})
    assert "was evaluated without groups" in fairlead("fairness", "loans", "--groups", str(people)).err
