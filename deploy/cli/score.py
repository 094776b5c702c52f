"""``fairlead score``: a file of rows to a file of answers, by the workflow of batch scoring."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from contracts.errors import PlatformError
from deploy.cli.output import EXIT_INTERRUPTED, console, emit, seconds, table
from deploy.cli.profiles import load_endpoints
from deploy.cli.workflow import execute, plan_scoring

if TYPE_CHECKING:
    from rich.console import Console

    from contracts.endpoints import Endpoints


def score_rows(profile: str, model: str, source: str, out: str, overrides: list[str], as_json: bool) -> None:
    """Score every row of `source` into the new folder `out`: Parquet parts and ``summary.json``."""
    from deploy.cli.progress import RunProgress

    target = Path(out).expanduser().absolute()
    if target.exists():
        raise PlatformError(f"{target} exists", fix="name a new folder with --out, or remove this one", code="exists")
    endpoints = load_endpoints(profile)
    _known(endpoints, model)
    request = plan_scoring(endpoints, model, source, overrides)
    progress = RunProgress(console(stderr=as_json))
    try:
        with progress:
            state = execute(request, progress.show)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    _copy(endpoints.path("runs") / request.run_id, target)
    document = {**state["result"], "run_id": request.run_id, "seconds": state["seconds"], "out": str(target)}
    emit(document, as_json, lambda to: _show(to, document))


def _known(endpoints: Endpoints, model: str) -> None:
    """Refuse a model that is not there before anything is made; a server's models are its own step's to look for."""
    from contracts.bundle import is_bundle
    from contracts.registry import Registry

    if not is_bundle(model) and endpoints.tracking_uri.startswith("sqlite:"):
        Registry(endpoints).resolve(model)


def _copy(run: Path, target: Path) -> None:
    """The scores of a run as a folder of its user's, complete or not there."""
    made = next(path.parent for path in (run / "steps").rglob("summary.json"))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".score-") as staging:
        shutil.copytree(made, Path(staging) / "scores").rename(target)


def _show(to: Console, document: dict[str, Any]) -> None:
    from rich.text import Text

    made = table("label", "rows", "share", right=("rows", "share"))
    for label, rows in document["labels"].items():
        made.add_row(label, f"{rows:,}", f"{rows / max(document['rows'], 1):.2%}")
    to.print(made)
    if document["flags"]:
        flags = table("flag", "rows", "share", right=("rows", "share"))
        for word, rows in document["flags"].items():
            flags.add_row(word, f"{rows:,}", f"{rows / document['rows']:.2%}")
        to.print(flags)
    for old, new in document["renamed"].items():
        to.print(f"Renamed  the source's column {old} is {new} in the output", markup=False)
    for warning in document["warnings"]:
        to.print(Text.assemble(("Warning  ", "bold yellow"), warning), soft_wrap=True)
    to.print(f"Scored   {document['rows']:,} rows by {document['model']}  {seconds(document['seconds'])}")
    to.print(f"Look     {document['out']}", soft_wrap=True)
