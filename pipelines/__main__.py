"""``python -m pipelines run|compile``: what the command line and the cluster start."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from contracts.endpoints import Endpoints
from contracts.errors import PlatformError


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run it; errors of a run are events on stdout, others are text on stderr."""
    given = _parser().parse_args(arguments)
    try:
        return _compile(given) if given.command == "compile" else _run(given)
    except PlatformError as err:
        if given.command == "run":
            from pipelines.event_stream import sender

            sender(sys.stdout, given.run_id)("run_failed", error=err.as_dict())
        sys.stderr.write(f"{err}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    from pipelines.run_settings import TASKS

    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a workflow on this machine")
    run.add_argument("--workflow", default="full", help="full, ingestion, training or batch_scoring")
    run.add_argument("--task", default="")
    run.add_argument("--recipe", default="", help="default: that of --config-json, else the task's")
    run.add_argument("--config-json", default="", help="sections to replace in the recipe, as JSON or a file")
    run.add_argument("--source", default="", help="file or folder; default: the task's built-in data")
    run.add_argument("--endpoints", default="", help="endpoints as JSON, or a file with it")
    run.add_argument("--run-id", required=True, help="the same id again resumes a failed run")
    run.add_argument("--nonce", default="", help="take only steps of the same nonce from the cache")
    run.add_argument("--no-promote", action="store_true", help="publish, but leave the champion as it is")
    run.add_argument("--dataset", default="", help="dataset version, for workflow training")
    run.add_argument("--model", default="", help="name, name@alias, name:version or a bundle, for batch_scoring")
    run.add_argument("--out", default="", help="new folder for the scores, for batch_scoring")
    run.add_argument("--settings", default="", help="settings of the run as JSON; kept, and without effect here")
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


def _run(given: argparse.Namespace) -> int:
    from pydantic import ValidationError

    from pipelines.runner import RunSpec, run

    if not given.run_id or Path(given.run_id).name != given.run_id or given.run_id.startswith("."):
        raise PlatformError(f"not a run id: {given.run_id!r}", fix="use letters, digits, - and _")
    try:
        endpoints = Endpoints.model_validate_json(_text(given.endpoints) or "{}")
    except ValidationError as err:
        raise PlatformError(
            "invalid endpoints", detail=str(err), fix="correct --endpoints", code="bad_settings"
        ) from err
    spec = RunSpec(
        run_id=given.run_id,
        task=given.task,
        config=_config(given) if given.workflow != "batch_scoring" else _text(given.config_json),
        source=given.source,
        endpoints=endpoints,
        workflow=given.workflow,
        nonce=given.nonce,
        promote=not given.no_promote,
        dataset=given.dataset,
        model=given.model,
        out=given.out,
        settings=json.loads(given.settings or "{}"),
    )
    return run(spec)


def _config(given: argparse.Namespace) -> str:
    from pipelines.tasks import dump_config, get_task
    from pipelines.values import chosen_config

    return dump_config(chosen_config(get_task(given.task), given.recipe, _text(given.config_json)))


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
