"""models, compare, promote and rollback over a registry in memory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contracts.bundle import Bundle, BundleDocument
from contracts.errors import PlatformError
from contracts.registry import ModelVersion, parse_ref
from deploy.cli.models.promotion import differences, main_metrics


def document(**changes: Any) -> BundleDocument:
    fields = {
        "name": "fraud",
        "task": "fraud",
        "recipe": "lightgbm",
        "modality": "tabular",
        "engine": "lightgbm",
        "signature": {"inputs": [{"name": "amount", "dtype": "float64"}], "classes": ["ok", "fraud"]},
        "metrics": {"average_precision": 0.7, "brier": 0.01},
        "slices": {"hour:night": {"average_precision": 0.5}},
        "gate": {"passed": True, "checks": []},
        "lineage": {"code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": "2026-01-01"},
        "files": {},
    }
    return BundleDocument.model_validate({**fields, **changes})


class FakeRegistry:
    """Three versions of one model, of which the gate refused the third."""

    def __init__(self, endpoints: object) -> None:
        self.documents = {
            "1": document(),
            "2": document(metrics={"average_precision": 0.75, "roc_auc": 0.9}),
            "3": document(gate={"passed": False, "checks": [], "reasons": ["average_precision 0.1 < 0.5"]}),
        }
        self.champions = ["1", "2"]

    def names(self) -> list[str]:
        return ["fraud"]

    def versions(self, name: str) -> list[ModelVersion]:
        return [self._version(number) for number in ("3", "2", "1")] if name == "fraud" else []

    def resolve(self, ref: str) -> ModelVersion:
        _, version, _ = parse_ref(ref)
        return self._version(version or self.champions[-1])

    def fetch(self, ref: str) -> Bundle:
        return Bundle(Path("/nowhere"), self.documents[self.resolve(ref).version], "0" * 64)

    def document(self, ref: str) -> BundleDocument:
        return self.fetch(ref).document

    def promote(self, ref: str, override: str = "") -> ModelVersion:
        version = self.resolve(ref)
        if not version.gate_passed and not override:
            raise PlatformError("the gate refused fraud:3", fix="train a better one", code="gate")
        self.champions.append(version.version)
        return replace(self._version(version.version), override=override)

    def rollback(self, name: str) -> ModelVersion:
        self.champions.pop()
        return self._version(self.champions[-1])

    def _version(self, number: str) -> ModelVersion:
        found = self.documents[number]
        return ModelVersion(
            name="fraud",
            version=number,
            digest="0" * 64,
            path="/bundles/fraud",
            gate_passed=found.gate.passed,
            created="2026-01-01T10:20:30Z",
            aliases=("champion",) if number == self.champions[-1] else (),
            metrics=found.metrics,
            recipe=found.recipe,
        )


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contracts.registry.Registry", FakeRegistry)


def test_models_show_aliases_gate_and_metrics_within_100_columns(fairlead) -> None:
    said = fairlead("models")
    rows = {line.split()[0]: line for line in said.out.splitlines() if line.startswith(("fraud:", " fraud:"))}
    assert "champion" in rows["fraud:2"]
    assert "refused" in rows["fraud:3"]
    assert "average_precision 0.750" in said.out
    assert "roc_auc 0.900" in said.out
    assert max(map(len, said.out.splitlines())) <= 100


def test_models_of_an_unknown_name_are_refused_with_the_known_ones(fairlead) -> None:
    said = fairlead("models", "frod", "--json")
    assert said.code == 1
    assert said.json["error"]["detail"].endswith(": fraud")


def test_compare_gives_the_difference_of_what_both_have(fairlead) -> None:
    found = fairlead("compare", "fraud:1", "fraud:2", "--json").json
    assert found["metrics"]["average_precision"]["difference"] == pytest.approx(0.05)
    assert found["metrics"]["roc_auc"] == {"first": None, "second": 0.9, "difference": None}
    assert found["slices"]["hour:night average_precision"]["difference"] == 0
    assert found["same_data"] is True


def test_compare_shows_both_side_by_side(fairlead) -> None:
    said = fairlead("compare", "fraud:1", "fraud:3")
    assert "+0.0000" in said.out
    assert "refused" in said.out


@pytest.mark.parametrize(
    ("digests", "same", "said"),
    [
        (("a", "a"), True, None),
        (("a", "b"), False, "evaluated on different test rows"),
        (("a", None), None, "not recorded whether the two were evaluated on the same test rows"),
    ],
)
def test_compare_says_whether_the_test_rows_are_the_same(
    fairlead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digests: tuple[Any, Any], same: bool | None, said: Any
) -> None:
    for number, digest in zip("12", digests, strict=True):
        (tmp_path / number).mkdir()
        text = json.dumps({"primary": "average_precision", "rows_digest": digest})
        (tmp_path / number / "evaluation.json").write_text(text)
    fetch = FakeRegistry.fetch

    def kept(self: FakeRegistry, ref: str) -> Bundle:
        bundle = fetch(self, ref)
        return Bundle(tmp_path / self.resolve(ref).version, bundle.document, bundle.digest)

    monkeypatch.setattr(FakeRegistry, "fetch", kept)
    assert fairlead("compare", "fraud:1", "fraud:2", "--json").json["same_rows"] is same
    shown = " ".join(fairlead("compare", "fraud:1", "fraud:2").out.split())
    assert said in shown if said else "test rows" not in shown


def test_compare_shows_what_the_gate_found_between_the_two(fairlead, monkeypatch: pytest.MonkeyPatch) -> None:
    check = {
        "metric": "average_precision",
        "rule": "not shown below",
        "value": 0.75,
        "limit": 0.69,
        "passed": True,
        "against": "fraud:1",
        "difference": 0.05,
        "interval": [-0.02, 0.12],
        "rows_compared": 812,
        "rows_left_out": 3,
    }
    made = FakeRegistry.__init__

    def init(self: FakeRegistry, endpoints: object) -> None:
        made(self, endpoints)
        self.documents["2"] = document(gate={"passed": True, "checks": [check], "champion": "fraud:1"})

    monkeypatch.setattr(FakeRegistry, "__init__", init)
    for pair in (("fraud:1", "fraud:2"), ("fraud:2", "fraud:1")):
        shown = " ".join(fairlead("compare", *pair).out.split())
        assert "of fraud:2 minus that of fraud:1: +0.0500 (95 % -0.0200 to +0.1200) on 812 rows new to both" in shown
    assert "minus that of" not in fairlead("compare", "fraud:2", "fraud:3").out


def test_promote_says_what_it_replaced(fairlead) -> None:
    said = fairlead("promote", "fraud:1")
    assert said.code == 0
    assert "fraud:1 is now the champion instead of fraud:2" in said.out


def test_promoting_a_refused_version_needs_a_reason(fairlead) -> None:
    said = fairlead("promote", "fraud:3")
    assert said.code == 3
    assert "train a better one" in said.err
    said = fairlead("promote", "fraud:3", "--override", "labels are incomplete", "--json")
    assert said.code == 0
    assert said.json["champion"]["override"] == "labels are incomplete"


def test_rollback_returns_to_the_previous_champion(fairlead) -> None:
    assert "fraud:1 is the champion again instead of fraud:2" in fairlead("rollback", "fraud").out


def test_main_metrics_are_the_ones_that_say_how_good_a_model_is() -> None:
    assert main_metrics({"brier": 0.1, "roc_auc": 0.9, "average_precision": 0.5}) == (
        "average_precision 0.500, roc_auc 0.900"
    )
    assert main_metrics({}) == "-"
    assert main_metrics({"rouge_1": 0.5, "rouge_2": 0.25, "bleu": 9.0}) == "rouge_1 0.500, rouge_2 0.250"
    several = {"accuracy": 0.8, "macro_f1": 0.7, "average_precision": 0.9, "roc_auc": 0.9}
    assert main_metrics(several) == "accuracy 0.800, macro_f1 0.700"
    two = {"average_precision": 0.9, "roc_auc": 0.8, "accuracy": 0.8, "macro_f1": 0.7}
    assert main_metrics(two) == "average_precision 0.900, roc_auc 0.800"


def test_differences_keep_the_order_of_the_first() -> None:
    assert list(differences({"b": 1.0, "a": 1.0}, {"a": 1.0, "c": 2.0})) == ["b", "a", "c"]
