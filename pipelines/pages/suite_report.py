"""The report of an evaluation by a suite: metrics, pairs, the judge, and answers side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipelines.pages.render import render

_SHOWN, _LONGEST = 60, 1_500  # items of a task, and characters of a text
_SPENT = (
    ("words", "words of an answer"),
    ("tokens", "tokens written"),
    ("prompt_tokens", "tokens read"),
    ("seconds_p50", "seconds of an answer, median"),
    ("refused", "requests refused"),
    ("cut", "answers cut at max_tokens"),
)


def render_suite(document: Mapping[str, Any]) -> str:
    """One self-contained page of the document of `pipelines.suites.evaluation.evaluate_suite`."""
    names = list(dict.fromkeys(name for model in document["models"] for name in model["metrics"]))
    paired = [
        {"model": one["model"], "against": one["against"], "metric": metric, **found}
        for one in document["paired"]
        for metric, found in one.items()
        if isinstance(found, Mapping)
    ]
    tasks = []
    for name in document["suite"]["tasks"]:
        rows = [row for row in document["rows"] if row["task"] == name]
        shown = [{**row, "prompt": _cut(row["prompt"]), **_texts(row)} for row in rows[:_SHOWN]]
        tasks.append({"name": name, "rows": shown, "more": max(0, len(rows) - _SHOWN)})
    return render(
        "suite.html",
        suite=document["suite"],
        time=document["time"],
        models=document["models"],
        names=names,
        spent=_SPENT,
        paired=paired,
        judge=document["judge"],
        tasks=tasks,
    )


def _texts(row: Mapping[str, Any]) -> dict[str, Any]:
    expected = {name: value for name, value in row["expected"].items() if name != "choices"}
    said = "\n".join(f"{name}: {_plain(value)}" for name, value in expected.items())
    answers = [{**one, "text": _cut(one["text"]), "judged": one.get("judged", "")} for one in row["answers"]]
    return {"expected": _cut(said), "answers": answers}


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
