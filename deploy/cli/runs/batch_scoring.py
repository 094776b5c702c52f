"""``fairlead score``: a file of rows to a file of answers, by the workflow of batch scoring."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.cli.profiles.loading import load_endpoints
from deploy.cli.runs.progress import show_changes, stoppable
from deploy.cli.runs.workflow import execute, plan_scoring
from deploy.cli.terminal.output import console, emit, seconds, table

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.endpoints import Endpoints
    from pipelines.run import Run


def score_rows(
    profile: str, model: str, source: str, out: str, to: str, overrides: list[str], as_json: bool, draw: str = ""
) -> None:
    """Score every row of `source` into the new folder `out`: Parquet parts, ``summary.json``; and to a collection.

    draw: where clips are written with what was found in them.
    """
    endpoints = load_endpoints(profile)
    settings: dict[str, Any] = {}
    if overrides:
        from pipelines.settings import parse_setting

        settings = dict(parse_setting(item) for item in overrides)
    if draw:
        settings["video.draw"] = str(Path(draw).expanduser().absolute())
    run = plan_scoring(endpoints, model, source, settings, str(Path(out).expanduser().absolute()), to)
    _known(endpoints, model)
    run_scoring(run.having(profile=profile), as_json)


def run_scoring(run: Run, as_json: bool) -> None:
    """Score with progress (on stderr with JSON) and show what came of it."""
    from deploy.cli.runs.progress import RunProgress

    to = console(stderr=as_json)
    show_changes(to, run.changed)
    with stoppable(run, as_json), RunProgress(to) as progress:
        state = execute(run, progress.show)
    document = {**state["result"], "run_id": run.run_id, "seconds": state["seconds"], "out": run.out}
    emit(document, as_json, lambda to: _show(to, document))


def _known(endpoints: Endpoints, model: str) -> None:
    """Refuse a model that is not there before anything is made; a server's models are its own step's to look for."""
    from contracts.bundle import is_bundle
    from contracts.registry import Registry

    if not is_bundle(model) and endpoints.tracking_uri.startswith("sqlite:"):
        Registry(endpoints).resolve(model)


def _show(to: Console, document: dict[str, Any]) -> None:
    from rich.text import Text

    from pipelines.evaluation import get_evaluation

    headings, rows = get_evaluation(document["problem"]).batch_table(document)
    made = table(*headings, right=tuple(headings[1:]))
    for row in rows:
        made.add_row(*row)
    to.print(made)
    if document["flags"]:
        flags = table("flag", "rows", "share", right=("rows", "share"))
        for word, count in document["flags"].items():
            flags.add_row(word, f"{count:,}", f"{count / document['rows']:.2%}")
        to.print(flags)
    if clips := document.get("clips"):
        _show_clips(to, clips)
    for old, new in document["renamed"].items():
        to.print(f"Renamed  the source's column {old} is {new} in the output", markup=False)
    for warning in document["warnings"]:
        to.print(Text.assemble(("Warning  ", "bold yellow"), warning), soft_wrap=True)
    what = "frames" if clips else "rows"
    to.print(f"Scored   {document['rows']:,} {what} by {document['model']}  {seconds(document['seconds'])}")
    if written := document.get("written"):
        to.print(f"Written  {written['documents']:,} documents to {written['place']}", soft_wrap=True)
    to.print(f"Look     {document['out']}", soft_wrap=True)


def _show_clips(to: Console, clips: list[dict[str, Any]]) -> None:
    made = table(
        "clip", "seconds", "frames", "looked at", "objects", "events", right=("seconds", "frames", "looked at")
    )
    for one in clips:
        objects = ", ".join(f"{count} {label}" for label, count in one["tracks"].items() if count)
        counts = "; ".join(
            f"{name}: " + ", ".join(f"{count} {word}" for word, count in said.items())
            for name, said in one["counts"].items()
        )
        row = (f"{one['seconds']:.1f}", f"{one['frames']:,}", f"{one['looked_at']:,}", objects or "none", counts or "-")
        made.add_row(one["clip"], *row)
    to.print(made)
    for one in clips:
        if one["drawn"]:
            to.print(f"Drawn    {one['drawn']}", soft_wrap=True)
