"""What the page of Kubeflow shows of a run: filled with KFP's own artifacts from what the toy task's steps leave."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from google.protobuf import json_format, struct_pb2

from contracts.bundle import GateDecision
from pipelines.evaluation.curves import confusion, curves, roc
from pipelines.pages import kubeflow
from pipelines.pages.data_report import render_data
from tests.late import Late

dsl = Late("kfp.dsl")

HOSTILE = "<script>alert(1)</script>|*x*"


class _Page(HTMLParser):
    """Tags, attributes that load something, and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture
def filled(candidate: Path, tmp_path: Path) -> dict[str, Any]:
    """The artifacts of an evaluation of the toy task."""
    made = {
        "metrics": dsl.Metrics(uri=str(tmp_path / "metrics")),
        "classes": dsl.ClassificationMetrics(uri=str(tmp_path / "classes")),
        "card": dsl.HTML(uri=str(tmp_path / "card.html")),
    }
    kubeflow.fill_evaluation(str(candidate / "candidate"), **made)
    return made


def test_metrics_begin_with_the_primary_one_and_its_interval(filled: dict[str, Any], candidate: Path) -> None:
    evaluation = json.loads((candidate / "candidate" / "evaluation.json").read_text())
    shown = filled["metrics"].metadata
    primary = evaluation["primary"]
    assert list(shown)[:3] == [primary, f"{primary} low", f"{primary} high"]
    assert shown[f"{primary} low"] <= shown[primary] == evaluation["metrics"][primary] <= shown[f"{primary} high"]
    assert shown["test rows"] == evaluation["rows"]
    assert set(evaluation["metrics"]) <= set(shown)
    json_format.ParseDict(shown, struct_pb2.Struct())  # as KFP stores it: plain and finite


def test_confusion_matrix_and_roc_curve_are_those_of_the_answers(filled: dict[str, Any], candidate: Path) -> None:
    shown = filled["classes"].metadata
    answers = np.load(candidate / "candidate" / "answers.npy")
    frame = pd.read_parquet(candidate / "dataset" / "test.parquet")
    document = json.loads((candidate / "candidate" / "candidate.json").read_text())
    names, threshold = document["signature"]["output"]["classes"], document["decision"]["threshold"]
    at = names.index(document["decision"]["positive"])
    alarms = int(((answers[:, at] >= threshold) & (frame["label"] == names[at])).sum())
    matrix = shown["confusionMatrix"]
    assert [each["displayName"] for each in matrix["annotationSpecs"]] == names
    assert matrix["rows"][at]["row"][at] == alarms
    assert sum(sum(row["row"]) for row in matrix["rows"]) == len(frame)
    points = shown["confidenceMetrics"]
    assert (points[0]["falsePositiveRate"], points[0]["recall"]) == (0.0, 0.0)
    assert (points[-1]["falsePositiveRate"], points[-1]["recall"]) == (1.0, 1.0)
    area = np.trapezoid([p["recall"] for p in points], [p["falsePositiveRate"] for p in points])
    assert area == pytest.approx(document["metrics"]["roc_auc"], abs=0.02)
    json_format.ParseDict(shown, struct_pb2.Struct())


def test_the_card_is_whole_before_the_gate_has_decided(filled: dict[str, Any]) -> None:
    shown = _Page(Path(filled["card"].path).read_text())
    assert "not decided" not in shown.words
    assert "the next step decides" in shown.words
    assert "script" not in shown.tags
    assert all(each.startswith("data:image/png;base64,") for each in shown.loads)


def test_many_classes_are_shown_by_the_commonest_and_the_others_together() -> None:
    counts = np.diag(np.arange(1, 31)) + np.eye(30, k=1, dtype=int)
    found = confusion(counts, [f"c{at}" for at in range(30)], most=5)
    assert found["classes"] == [*(f"c{at}" for at in range(25, 30)), "25 others"]
    assert np.array(found["counts"]).sum() == counts.sum()
    assert [found["counts"][at][at] for at in range(5)] == [26, 27, 28, 29, 30]
    assert found["counts"][5][0] == 1  # c24, taken for c25


def test_a_long_list_of_classes_makes_no_long_artifacts(tmp_path: Path) -> None:
    names = [f"class {at} {'x' * 80}" for at in range(400)]
    rng = np.random.default_rng(1)
    answers = rng.dirichlet(np.ones(400), size=2000)
    found = curves(rng.integers(0, 400, 2000), answers, names, None)
    classes = dsl.ClassificationMetrics(uri=str(tmp_path / "classes"))
    classes.log_confusion_matrix(kubeflow._distinct(found["confusion"]["classes"]), found["confusion"]["counts"])
    assert len(json.dumps(classes.metadata)) < 20_000
    evaluation: dict[str, Any] = {
        "primary": "accuracy",
        "metrics": {"accuracy": 0.5} | {f"f1:{name}": 0.1 for name in names},
    }
    evaluation |= {"intervals": {}, "rows": 2000, "latency_ms": {"p50": 1.0}, "bundle_mb": 2.0}
    assert len(kubeflow._numbers(evaluation)) == 40


@pytest.mark.parametrize("rows", [2, 10, 5000])
def test_a_roc_curve_has_both_ends_and_few_points(rows: int) -> None:
    rng = np.random.default_rng(rows)
    score = rng.random(rows).round(2)
    positive = np.arange(rows) % 2 == 0
    found = roc(positive, score)
    assert (found["fpr"][0], found["tpr"][0], found["fpr"][-1], found["tpr"][-1]) == (0, 0, 1, 1)
    assert len(found["fpr"]) <= 101
    assert found["threshold"] == sorted(found["threshold"], reverse=True)
    for at in (len(found["fpr"]) // 2, -1):
        assert found["tpr"][at] == pytest.approx((score[positive] >= found["threshold"][at] - 1e-6).mean(), abs=1e-4)


def test_a_page_of_the_data_has_splits_classes_columns_and_what_was_left_out(candidate: Path, tmp_path: Path) -> None:
    report = dsl.HTML(uri=str(tmp_path / "report.html"))
    manifest = {"task": "toy", "version": "v1", "source": HOSTILE, "rows": 9, "rejected": 0, "files": []}
    manifest["files"] = [{"name": "<b>rows.csv", "rows": 9, "bytes": 1, "sha256": "0"}]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    kubeflow.fill_data(str(candidate / "dataset"), str(tmp_path / "manifest.json"), report)
    html = Path(report.path).read_text()
    shown = _Page(html)
    document = json.loads((candidate / "dataset" / "dataset.json").read_text())
    assert HOSTILE in shown.words
    assert not {"script", "b>rows.csv", "link", "img"} & set(shown.tags)
    assert shown.loads == []
    for item in document["inputs"]:
        assert f"<code>{item['name']}</code>" in html
    for split in ("train", "valid", "test"):
        assert f"{document['rows'][split]:,}" in shown.words
    assert "svg" in shown.tags
    assert len(html) < 60_000


def _dataset(folder: Path, frame: pd.DataFrame, **changes: Any) -> Path:
    """A data set of one frame, as build_dataset leaves it."""
    folder.mkdir()
    names = [name for name in frame.columns if name != "label"]
    inputs = [{"name": name, "dtype": "string", "description": "of a row", "source": "request"} for name in names]
    counts = frame["label"].value_counts().to_dict()
    document: dict[str, Any] = {
        "rows": dict.fromkeys(("train", "valid", "test"), len(frame)),
        "inputs": inputs,
        "slices": [],
    }
    document |= {"labels": dict.fromkeys(("train", "valid", "test"), counts), "left_out": None, **changes}
    frame.to_parquet(folder / "train.parquet", index=False)
    (folder / "dataset.json").write_text(json.dumps(document))
    return folder


def test_values_of_the_data_are_texts_and_free_text_is_not_shown(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "label": [HOSTILE, "b"] * 50,
            "kind": [HOSTILE, "shop"] * 50,
            "title": [f"secret {at}" for at in range(100)],
            "amount": [*range(99), None],
            "empty": [None] * 100,
            "same": [1.0] * 100,
            "endless": [np.inf, 1.0] * 50,
            "flag": [True, False] * 50,
            "when": pd.date_range("2026-01-01", periods=100, tz="UTC"),
        }
    )
    gone = {"rows_read": 105, "rows_left_out": 5, "classes": []}
    gone["groups"] = [{"step": "validate", "reason": "<i>bad</i>", "rows": 5, "where": "q.csv"}]
    html = render_data(_dataset(tmp_path / "set", frame, left_out=gone), {}, HOSTILE)
    shown = _Page(html)
    assert "script" not in shown.tags
    assert shown.words.count(HOSTILE) >= 3
    assert "secret" not in html
    assert "100 texts of 8 to 9 characters, median 9" in shown.words
    assert "0 to 98, median 49" in shown.words
    assert "2026-01-01 00:00:00 to 2026-04-10 00:00:00" in shown.words
    assert "true in 50.0%" in shown.words
    assert "<i>bad</i>" in shown.words


def test_of_many_classes_the_commonest_are_shown_and_the_others_counted(tmp_path: Path) -> None:
    labels = [f"c{at:03d}" for at in range(45) for _ in range(at + 1)]
    frame = pd.DataFrame({"label": labels, "x": range(len(labels))})
    html = render_data(_dataset(tmp_path / "set", frame), {})
    assert "<td>c044</td>" in html
    assert "<td>c003</td>" not in html
    assert "15 rarer classes are not shown" in html


@pytest.mark.parametrize("passed", [True, False])
def test_the_verdict_says_each_check_and_the_comparison(passed: bool, tmp_path: Path) -> None:
    checks: list[dict[str, Any]] = [
        {"metric": f"f1:{HOSTILE}", "rule": "at least", "value": None, "limit": 0.6, "passed": passed},
        {"metric": "macro_f1", "rule": "at least", "value": 0.91, "limit": 0.9, "passed": True, "against": "news:3"},
    ]
    checks[1] |= {"difference": 0.01, "interval": [-0.002, 0.022], "rows_compared": 1234, "rows_left_out": 6}
    document = {"passed": passed, "checks": checks, "champion": "news:3", "reasons": [f"because of {HOSTILE}"]}
    (tmp_path / "gate.json").write_text(GateDecision.model_validate(document).model_dump_json())
    shown = dsl.Markdown(uri=str(tmp_path / "gate.md"))
    kubeflow.fill_gate(str(tmp_path / "gate.json"), shown)
    text = Path(shown.path).read_text()
    assert text.startswith("# Gate: **passed**" if passed else "# Gate: **refused**: 1 of 2 checks failed")
    assert "Compared with champion news:3." in text
    assert "+0.01, 95 % -0.002 to +0.022 (1,234 rows)" in text
    assert "<script" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {6}
    assert "not measured" in rows[2]


def test_a_page_of_an_earlier_candidate_shows_what_there_is(candidate: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(candidate / "candidate", tmp_path / "candidate"))
    evaluation = json.loads((source / "evaluation.json").read_text())
    del evaluation["confusion"], evaluation["roc"]
    (source / "evaluation.json").write_text(json.dumps(evaluation))
    classes = dsl.ClassificationMetrics(uri=str(tmp_path / "classes"))
    artifacts = dsl.Metrics(uri=str(tmp_path / "m")), classes, dsl.HTML(uri=str(tmp_path / "card.html"))
    kubeflow.fill_evaluation(str(source), *artifacts)
    assert classes.metadata == {}
    assert Path(artifacts[2].path).exists()
