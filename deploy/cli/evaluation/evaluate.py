"""``fairlead evaluate``: models asked by a suite, measured, compared in pairs, judged; kept and tracked."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.evaluation.reaching import answered, reach
from deploy.cli.profiles.loading import load_endpoints
from deploy.cli.terminal.output import console, emit, number, table

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.endpoints import Endpoints

EXPERIMENT = "evaluations"
JUDGE_KEY = "FAIRLEAD_JUDGE_KEY"


def evaluate_models(
    profile: str, refs: Sequence[str], named: str, judge: str, at_once: int, again: bool, track: bool, as_json: bool
) -> None:
    """Evaluate, write the document and the report below the profile's folder, track each model, and show."""
    from pipelines.io.files import write_json, write_text
    from pipelines.pages.suite_report import render_suite
    from pipelines.suites.asking import KeptAnswers
    from pipelines.suites.document import requests
    from pipelines.suites.evaluation import evaluate_suite
    from pipelines.suites.loading import load_suite

    suite = load_suite(named)
    if judge and suite.judge is None:
        fix = "give the suite a section judge with its criteria, or leave --judge out"
        raise PlatformError(f"suite {suite.suite} says nothing to a judge", fix=fix, code="bad_input")
    endpoints, progress = load_endpoints(profile), console(stderr=True)
    models = [reach(profile, ref) for ref in refs]
    if len({one.identity for one in models}) < len(models):
        raise PlatformError("a model is named twice", fix="name each model once", code="bad_input")
    root = endpoints.scratch("evaluations")
    kept = KeptAnswers(root / "answers" / suite.suite, again)
    known = [answered(one, requests(suite), kept, at_once, progress) for one in models]
    opened = reach(profile, judge, JUDGE_KEY).open() if judge else contextlib.nullcontext()
    with opened as judging, contextlib.ExitStack() as bars:
        tell = _Bars(progress, bars)
        document = evaluate_suite(suite, known, kept, at_once=at_once, judge=judging, tell=tell)
    folder = root / document["id"]
    write_json(folder / "evaluation.json", document)
    write_text(folder / "report.html", render_suite(document))
    shown = {**document, "folder": str(folder), "report": str(folder / "report.html"), "tracked": []}
    if track:
        shown["tracked"] = _tracked(endpoints, document, folder)
    emit(shown, as_json, lambda out: _show(out, shown))


class _Bars:
    """Bars of what a judge is asked; of models' answers, which are kept by then, there are none."""

    def __init__(self, out: Console, stack: contextlib.ExitStack) -> None:
        self._out, self._stack, self._open = out, stack, dict[str, Any]()

    def __call__(self, doing: str, done: int, total: int) -> None:
        from deploy.cli.evaluation.reaching import bar

        if doing.startswith("judge"):
            if doing not in self._open:
                self._stack.close()
                self._open[doing] = self._stack.enter_context(bar(self._out, doing, total))
            self._open[doing](False)


def _tracked(endpoints: Endpoints, document: Mapping[str, Any], folder: Path) -> list[dict[str, str]]:
    """A run of MLflow for each model."""
    from contracts.tracking import track_run

    suite, found = document["suite"], []
    judged = document["judge"] or {}
    for model in document["models"]:
        metrics = dict(model["metrics"])
        for name, (low, high) in model["intervals"].items():
            metrics |= {f"{name}.low": low, f"{name}.high": high}
        for one in judged.get("comparisons", ()):
            if one["model"] == model["name"]:
                metrics |= {
                    f"judge.{key}": one[key]
                    for key in ("win_rate", "consistent", "position_bias")
                    if one[key] is not None
                }
        params = {"suite": suite["name"], "suite_version": suite["version"], "model": model["name"]}
        params |= {"identity": model["identity"], "judge": judged.get("name", ""), "evaluation": document["id"]}
        run, page = track_run(
            endpoints, EXPERIMENT, f"{suite['name']}: {model['name']}", params, metrics, artifacts=folder
        )
        found.append({"model": model["name"], "run_id": run, "page": page})
    return found


def _show(out: Console, document: Mapping[str, Any]) -> None:
    models, suite = document["models"], document["suite"]
    headings = [f"{one['name']}" for one in models]
    made = table("metric", *headings, right=headings)
    for name in dict.fromkeys(name for one in models for name in one["metrics"]):
        made.add_row(name, *(_value(one, name) for one in models))
    for key, title in (("refused", "requests refused"), ("cut", "answers cut"), ("seconds_p50", "seconds, median")):
        made.add_row(title, *(number(one["spent"][key]) for one in models))
    out.print(f"Suite    {suite['name']} {suite['version']}, {suite['items']} items", markup=False)
    out.print(made)
    for pair in document["paired"]:
        found = pair["score"]
        interval = found["interval"]
        spread = f" (95 % {interval[0]:+.3f} to {interval[1]:+.3f})" if interval else ""
        shown = {"open": "which of them is better is open"}.get(found["shown"], f"shown to be {found['shown']}")
        text = f"{pair['model']} against {pair['against']}: {found['difference']:+.3f}{spread}, {shown}"
        out.print(f"Paired   {text}", markup=False, soft_wrap=True)
    if judge := document["judge"]:
        _show_judge(out, judge)
    out.print(f"Report   {document['report']}", markup=False, soft_wrap=True)
    for one in document["tracked"]:
        out.print(f"Tracked  {one['model']}: {one['page']}", markup=False, soft_wrap=True)


def _show_judge(out: Console, judge: Mapping[str, Any]) -> None:
    if human := judge["human"]:
        text = (
            f"{human['agreement']:.0%} of {human['pairs']} labelled pairs as people, kappa {number(human['kappa'], 2)}"
        )
        out.print(f"Judge    {judge['name']}: {text}", markup=False, soft_wrap=True)
    for one in judge["comparisons"]:
        bias = "-" if one["position_bias"] is None else f"{one['position_bias']:+.2f}"
        text = (
            f"{one['model']} against {one['against']}: won {one['win_rate']:.2f} of {one['pairs']}, ties as half; "
            f"{one['consistent']:.0%} the same in both orders, bias to the first {bias}"
        )
        out.print(f"Judged   {text}", markup=False, soft_wrap=True)


def _value(model: Mapping[str, Any], name: str) -> str:
    value, interval = model["metrics"].get(name), model["intervals"].get(name)
    return f"{number(value, 3)} ({interval[0]:.2f}-{interval[1]:.2f})" if interval else number(value, 3)
