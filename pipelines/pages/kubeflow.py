"""What the page of Kubeflow shows of a run: metrics, confusion matrix and ROC curve, model card, data, verdict.

Each function fills output artifacts of KFP from what the steps left. They are pictures of the run and part of no
result: what is not there is not shown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from contracts.bundle import Check, GateDecision
from pipelines.formatting import number
from pipelines.io.files import read_json, write_text

_METRICS = 40  # numbers of one artifact: a page lists them all
_NAME = 60  # characters of a class


def fill_evaluation(candidate: str, metrics: Any, classes: Any, card: Any) -> None:
    """Metrics with the interval of the primary one, the confusion matrix, of two classes the ROC curve, and the card.

    Args:
        candidate: folder that evaluate wrote.
        metrics, classes, card: a dsl.Metrics, a dsl.ClassificationMetrics and a dsl.HTML.
    """
    from pipelines.pages.card import render_card
    from pipelines.tasks import get_task

    folder = Path(candidate)
    evaluation, fields = read_json(folder / "evaluation.json"), read_json(folder / "candidate.json")
    for name, value in _numbers(evaluation).items():
        metrics.log_metric(name, value)
    if found := evaluation.get("confusion"):
        classes.log_confusion_matrix(_distinct(found["classes"]), found["counts"])
    if found := evaluation.get("roc"):
        classes.log_roc_curve(found["fpr"], found["tpr"], found["threshold"])
    fields = {key: value for key, value in fields.items() if key != "gate"}
    write_text(Path(card.path), render_card(folder, fields, get_task(fields["task"]).title))


def fill_card(published: str, card: Any) -> None:
    """The card as it is in the bundle that register published, with the gate's verdict.

    Args:
        published: document that register wrote.
    """
    from contracts import storage

    Path(card.path).write_bytes(storage.read_bytes(storage.join(read_json(published)["path"], "card.html")))


def fill_data(dataset: str, manifest: str, report: Any) -> None:
    """The data set as a page.

    Args:
        dataset: folder that build_dataset wrote.  manifest: file that ingest wrote, "" where there is none.
    """
    from pipelines.pages.data_report import render_data

    about: Mapping[str, Any] = read_json(manifest) if manifest else {}
    write_text(Path(report.path), render_data(Path(dataset), about, str(about.get("task", ""))))


def fill_gate(decision: str, markdown: Any) -> None:
    """The verdict with each check and its reasons, as Markdown.

    Args:
        decision: file that gate wrote.
    """
    write_text(Path(markdown.path), gate_markdown(GateDecision.model_validate(read_json(decision))))


def gate_markdown(decision: GateDecision) -> str:
    """Verdict, table of checks, the comparison with the champion, and reasons."""
    failed = sum(not check.passed for check in decision.checks)
    verdict = "**passed**" if decision.passed else f"**refused**: {failed} of {len(decision.checks)} checks failed"
    lines = [f"# Gate: {verdict}", ""]
    champion = f"Compared with champion {_plain(decision.champion)}." if decision.champion else "There is no champion."
    lines += [champion, "", "| | Metric | Measured | Rule | Difference to the champion |", "|---|---|---|---|---|"]
    lines += [_row(check) for check in decision.checks]
    lines += ["", "## Reasons", "", *(f"- {_plain(reason)}" for reason in decision.reasons)] if decision.reasons else []
    return "\n".join(lines) + "\n"


def _row(check: Check) -> str:
    against = "" if check.against == "fixed" else f" (against {_plain(check.against)})"
    cells = [
        "passed" if check.passed else "**failed**",
        _plain(check.metric),
        number(check.value) if check.value is not None else "not measured",
        f"{_plain(check.rule)} {number(check.limit)}{against}",
        _difference(check),
    ]
    return f"| {' | '.join(cells)} |"


def _difference(check: Check) -> str:
    if check.difference is None:
        return ""
    low_high = f", 95 % {check.interval[0]:+.3g} to {check.interval[1]:+.3g}" if check.interval else ", no interval"
    rows = "its recorded value" if check.rows_compared is None else f"{check.rows_compared:,} rows"
    return f"{check.difference:+.3g}{low_high} ({rows})"


def _plain(text: str | None) -> str:
    """A text that Markdown shows as it stands, on one line: its marks and those of HTML are escaped."""
    marked = re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", " ".join(str(text).split()))
    return escape(marked, quote=False)


def _numbers(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The metrics, the primary one first with its interval, and what serving costs; at most `_METRICS`."""
    primary, metrics = evaluation["primary"], evaluation["metrics"]
    found = {primary: metrics.get(primary)}
    low, high = evaluation["intervals"].get(primary, (None, None))
    found |= {f"{primary} low": low, f"{primary} high": high}
    found |= {name: value for name, value in metrics.items() if ":" not in name}
    found |= {"test rows": evaluation["rows"], "latency_ms": evaluation["latency_ms"]["p50"]}
    found |= {"bundle_mb": evaluation["bundle_mb"]}
    found |= metrics  # those of single classes last: of many classes some are cut off
    kept = {name[:_NAME]: float(v) for name, v in found.items() if isinstance(v, int | float) and math.isfinite(v)}
    return dict(list(kept.items())[:_METRICS])


def _distinct(classes: list[str]) -> list[str]:
    """Short names, each of its own: rows are found by them."""
    found: list[str] = []
    for at, name in enumerate(classes):
        short = name if len(name) <= _NAME else f"{name[:_NAME]}..."
        found.append(f"{short} ({at + 1})" if short in found else short)
    return found
