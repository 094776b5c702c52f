"""The model card: one self-contained HTML file in every bundle."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from contracts.bundle import BundleDocument, GateDecision
from contracts.engines.scorecard import read_scorecard
from pipelines.data import left_out, register
from pipelines.data.hidden import SLICE, cases
from pipelines.evaluation import get_evaluation, scoring
from pipelines.evaluation.base import Evaluation
from pipelines.pages.data_report import FILE as DATA_REPORT
from pipelines.pages.render import render
from pipelines.plugins import task_folder


def render_card(folder: Path, fields: Mapping[str, Any], title: str, cost: Mapping[str, Any] | None = None) -> str:
    """The HTML of a candidate.

    Args:
        fields: of a BundleDocument without `files`, before the gate also without `gate`.
        cost: what the run took so far, of `pipelines.cost.cost_so_far`; None where it is not known.
    """
    decided = "gate" in fields
    document = fields_document(fields)
    by = get_evaluation(document.signature.output.problem)
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    return render(
        "card.html",
        model=document,
        title=title,
        headline=_headline(by, evaluation),
        metrics=_metrics(by, evaluation),
        slices=_slices(evaluation),
        hidden=_hidden(folder, evaluation),
        evaluation=evaluation,
        card=read_scorecard(folder / "model"),
        left_out=_left_out(evaluation.get("left_out")),
        origin=register.in_words(evaluation.get("origin") or {}),
        rows_text=by.rows_text(evaluation),
        decision_text=by.decision_text(document),
        answers_text=by.answers_text(document),
        gate=document.gate,
        checks=_checks(by, document.gate),
        decided=decided,
        data_report=DATA_REPORT if decided and (folder / DATA_REPORT).exists() else "",
        cost=cost,
        plots=[(p.stem.replace("_", " "), _embed(p)) for p in _ordered(folder / "plots", by.plots)],
        request=curl(document, folder),
        about=[(heading, _html(text)) for heading, text in readme_sections(document.task)],
    )


def fields_document(fields: Mapping[str, Any]) -> BundleDocument:
    """The document of a bundle that is not written yet, or not decided about."""
    lineage = {"created": "", **fields["lineage"]}
    return BundleDocument.model_validate({"gate": scoring.UNDECIDED, **fields, "lineage": lineage, "files": {}})


def _left_out(found: Mapping[str, Any] | None) -> list[str] | None:
    """What the card says about rows that were left out; None where it is not known."""
    if found is None:
        return None
    return left_out.in_words(found) or [f"None of {found['rows_read']:,} rows was left out."]


def _headline(by: Evaluation, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    primary = evaluation["primary"]
    low, high = evaluation["intervals"].get(primary, (None, None))
    return {"name": by.title(primary), "value": evaluation["metrics"].get(primary), "low": low, "high": high}


def _metrics(by: Evaluation, evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for metric, value in evaluation["metrics"].items():
        low, high = evaluation["intervals"].get(metric, (None, None))
        better = "higher" if by.higher_is_better(metric) else "lower"
        rows.append({"name": by.title(metric), "value": value, "low": low, "high": high, "better": better})
    return rows


def _slices(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    primary = evaluation["primary"]
    rows = []
    for key, values in evaluation["slices"].items():
        group, _, value = key.partition(":")
        low, high = evaluation["slice_intervals"].get(key, (None, None))
        row = {
            "group": group.replace("_", " "),
            "value": value,
            "rows": values["rows"],
            "measured": values.get(primary),
        }
        rows.append({**row, "low": low, "high": high})
    return rows


def _hidden(folder: Path, evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The slices of rows without features, each with what is served then."""
    file = folder / "features.json"
    if not file.exists():
        return []
    found = [(f"{SLICE}:{case.name}", case.said) for case in cases(json.loads(file.read_text(encoding="utf-8")))]
    return [(key.replace(":", ": "), said) for key, said in found if key in evaluation["slices"]]


def _checks(by: Evaluation, gate: GateDecision) -> list[dict[str, Any]]:
    return [
        {**check.model_dump(), "name": by.title(check.metric) if ":" not in check.metric else check.metric}
        for check in gate.checks
    ]


def _ordered(folder: Path, plots: Sequence[str]) -> list[Path]:
    rank = {name: at for at, name in enumerate(plots)}
    return sorted(folder.glob("*.png"), key=lambda p: (rank.get(p.stem, len(rank)), p.stem))


def _embed(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()


def curl(document: BundleDocument, folder: Path) -> str:
    """A request for a running service: entity keys and request fields, or the first golden example's inputs."""
    signature = document.signature
    if signature.entities:
        row: dict[str, Any] = dict.fromkeys(signature.entities, "...")
        if signature.timestamp:
            row[signature.timestamp] = "2026-01-31T12:00:00Z"
        row |= {item.name: 0.0 if item.dtype in ("float64", "int64") else "..." for item in signature.request}
    else:
        first = (folder / "golden.jsonl").read_text(encoding="utf-8").splitlines()[0]
        row = json.loads(first)["inputs"]
        row = {k: v[:80] + "..." if isinstance(v, str) and len(v) > 80 else v for k, v in row.items()}
    body = json.dumps({"instances": [row]}, ensure_ascii=False).replace("'", "'\\''")
    return f"curl -s http://localhost:3000/predict -H 'Content-Type: application/json' \\\n  -d '{body}'"


def readme_sections(task: str) -> list[tuple[str, str]]:
    """(heading, text) of the sections of the task's README that a card is for: its use, its data and its limits."""
    file = task_folder(task) / "README.md"
    if not file.exists():
        return []
    parts = re.split(r"^#{1,3}\s+(.+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    sections = list(zip(parts[1::2], (text.strip() for text in parts[2::2]), strict=True))
    wanted = [s for s in sections if re.search(r"\b(use|limit|bias|ethic|data)", s[0], re.IGNORECASE) and s[1]]
    return wanted or [("About", text) for _, text in sections[:1]]


def _html(text: str) -> str:
    """The little Markdown that a README section needs: paragraphs, lists, bold, code; all else as it stands."""
    import markupsafe

    blocks = []
    for block in re.split(r"\n\s*\n", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL).strip()):
        lines = block.splitlines()
        if not lines or lines[0].startswith("|"):
            continue
        if lines[0].lstrip().startswith(("- ", "* ")):
            items = re.split(r"^\s*[-*] ", block, flags=re.MULTILINE)[1:]
            blocks.append("<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>")
        else:
            blocks.append(f"<p>{_inline(block)}</p>")
    return markupsafe.Markup("\n".join(blocks))


def _inline(text: str) -> str:
    shown = escape(" ".join(text.split()))
    shown = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", shown)
    shown = re.sub(r"`([^`]+)`", r"<code>\1</code>", shown)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", shown)
