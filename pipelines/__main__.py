"""``python -m pipelines run|compile``: what the command line and the cluster start."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError
from contracts.garbage import collect_rarely


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run it; errors of a run are events on stdout, others are text on stderr."""
    collect_rarely()
    given = _parser().parse_args(arguments)
    asked: dict[str, Any] = {}
    try:
        if given.command == "compile":
            return _compile(given)
        asked = _document(_text(given.asked))
        return _run(asked)
    except PlatformError as err:
        if given.command == "run":
            from pipelines.event_stream import sender

            sender(sys.stdout, str(asked.get("run_id", "")))("run_failed", error=err.as_dict())
        sys.stderr.write(f"{err}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    from pipelines.run_settings import TASKS

    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a workflow on this machine")
    run.add_argument("asked", help="what it is asked, as JSON (pipelines/run.py) or a file with it")
    make = commands.add_parser("compile", help="write the workflows for a cluster")
    make.add_argument("--out", default="build/workflows")
    make.add_argument("--image", default="", help="the image of the steps, with its digest")
    make.add_argument("--endpoints", default="", help="the platform's addresses, for runs that name none")
    make.add_argument("--tasks", default="few", choices=TASKS, help="how many steps share a task")
    make.add_argument("--train-gpus", type=int, default=0)
    make.add_argument("--task", default="", help="with the steps of this task only; default: for any task")
    return parser


def _text(given: str) -> str:
    """JSON as given, or the content of the file that is named."""
    if not given or given.lstrip().startswith("{"):
        return given
    try:
        return Path(given).read_text(encoding="utf-8")
    except OSError as err:
        raise PlatformError(
            f"cannot read {given}: {err.strerror}", fix="give JSON, or the path of a file with it"
        ) from err


def _document(text: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as err:
        raise PlatformError("what the run is asked is not JSON", detail=str(err), code="bad_run") from err
    return found


def _run(given: dict[str, Any]) -> int:
    from pydantic import ValidationError

    from pipelines.run import Run
    from pipelines.runner import run
    from pipelines.tasks import get_task
    from pipelines.values import as_document, chosen_config

    try:
        asked = Run.model_validate(given)
    except ValidationError as err:
        raise PlatformError("invalid document of a run", detail=str(err), fix="correct it", code="bad_run") from err
    if unknown := sorted(set(given) - set(Run.model_fields)):
        raise PlatformError(
            f"a run is not asked for: {', '.join(unknown)}",
            fix=f"accepted: {', '.join(Run.model_fields)}",
            code="bad_run",
        )
    if not asked.run_id or Path(asked.run_id).name != asked.run_id or asked.run_id.startswith("."):
        raise PlatformError(f"not a run id: {asked.run_id!r}", fix="use letters, digits, - and _")
    if asked.workflow != "batch_scoring":
        config = chosen_config(get_task(asked.task), asked.recipe, asked.config)
        asked = asked.having(recipe=config.recipe, config=as_document(config))
    return run(asked)


def _compile(given: argparse.Namespace) -> int:
    from pipelines.resources import IMAGE, Placement
    from pipelines.tasks import get_task
    from pipelines.values import ENDPOINTS
    from pipelines.workflows import compile_workflows

    placement = Placement(
        cluster=True,
        image=given.image or IMAGE,
        tasks=given.tasks,
        train_gpus=given.train_gpus,
        environment={ENDPOINTS: text} if (text := _text(given.endpoints)) else {},
    )
    if given.tasks == "each" and not given.task:
        raise PlatformError("a task for each step needs to know whose steps", fix="name it: --task TASK")
    task = get_task(given.task) if given.task else None
    for file in compile_workflows(Path(given.out), placement, task=task):
        sys.stdout.write(f"{file}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
