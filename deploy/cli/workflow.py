"""Start a run, show its progress, and collect what came of it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from contracts.objects import is_remote
from deploy.cli.events import WorkflowChild, read_run_file
from deploy.cli.homes import remember

if TYPE_CHECKING:
    from contracts.endpoints import Endpoints


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """One run: `config` is the JSON text of a task's configuration, `source` is empty for the built-in data.

    `model` is what scores, and only for the workflow ``batch_scoring``, which has no task.
    """

    run_id: str
    task: str = ""
    recipe: str = ""
    config: str = ""
    source: str = ""
    endpoints: Endpoints
    no_cache: bool = False
    workflow: str = "full"
    model: str = ""

    def arguments(self) -> list[str]:
        """The command line of ``python -m pipelines run``."""
        given = {
            "--task": self.task,
            "--recipe": self.recipe,
            "--config-json": self.config,
            "--source": self.source,
            "--endpoints": self.endpoints.model_dump_json(),
            "--run-id": self.run_id,
        }
        if self.model:
            given = {**given, "--workflow": self.workflow, "--model": self.model}
        return [part for pair in given.items() for part in pair] + (["--no-cache"] if self.no_cache else [])


def new_run_id(task: str) -> str:
    """A name for a new run that sorts by time: ``fraud-20260102-030405-9f3c``."""
    return f"{task}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def plan_run(
    endpoints: Endpoints, task: str, recipe: str | None, overrides: list[str], source: str, no_cache: bool
) -> RunRequest:
    """A new run of a task; refuses an unknown task, recipe, key or source before anything starts."""
    from pipelines.tasks import dump_config, get_task, recipe_config

    found = get_task(task)
    config = recipe_config(found, recipe, dict(parse_override(item) for item in overrides))
    return RunRequest(
        run_id=new_run_id(task),
        task=task,
        recipe=config.recipe,
        config=dump_config(config),
        source=_source(source),
        endpoints=endpoints,
        no_cache=no_cache,
    )


def plan_scoring(
    endpoints: Endpoints, model: str, source: str, overrides: Sequence[str] = (), run_id: str = ""
) -> RunRequest:
    """A batch to score; refuses a source that is not there, or an unknown setting, before anything starts."""
    settings = dict(parse_override(item) for item in overrides)
    if settings:
        from pipelines.tasks import data_config

        data_config({}, settings)
    return RunRequest(
        run_id=run_id or new_run_id("score"),
        config=json.dumps(settings) if settings else "",
        source=_source(source),
        endpoints=endpoints,
        workflow="batch_scoring",
        model=model,
    )


def _source(source: str) -> str:
    if source and not is_remote(source) and not Path(source).expanduser().exists():
        raise PlatformError(
            f"source not found: {source}",
            fix="give a CSV, TSV or Parquet file, a folder of them, or s3://...; without it the built-in data is used",
            code="bad_source",
        )
    return source if not source or is_remote(source) else str(Path(source).expanduser().absolute())


def plan_resume(endpoints: Endpoints, run_id: str) -> RunRequest:
    """The same run again: steps that succeeded come from the cache, so it goes on where it failed."""
    from deploy.cli.runstate import find_run

    run = find_run(endpoints, run_id)
    if run["status"] in ("succeeded", "refused", "running"):
        reason = "it is still running" if run["status"] == "running" else f"it ended: {run['status']}"
        raise PlatformError(f"cannot resume {run_id}", detail=reason, fix=f"look at it: fairlead runs {run_id}")
    config = run["config"]
    if run.get("workflow") == "batch_scoring":
        again = [f"{key}={json.dumps(value)}" for key, value in (config or {}).items()]
        return plan_scoring(endpoints, run["model"], run["source"], again, run_id)
    return RunRequest(
        run_id=run_id,
        task=run["task"],
        recipe=run["recipe"],
        config=config if isinstance(config, str) else json.dumps(config),
        source=run.get("source") or "",
        endpoints=endpoints,
        no_cache=bool(run.get("no_cache")),
    )


def parse_override(item: str) -> tuple[str, Any]:
    """``model.rounds=50`` as ("model.rounds", 50); values are YAML."""
    import yaml

    key, equals, value = item.partition("=")
    if not equals or not key.strip():
        raise PlatformError(f"not a setting: {item!r}", fix="write --set key=value, for example --set model.rounds=50")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        return key.strip(), value


def execute(request: RunRequest, show: Callable[[dict[str, Any]], None] = lambda event: None) -> dict[str, Any]:
    """Run to the end and return run.json's content; `show` sees every event.

    Raises:
        PlatformError: the run failed; says how to resume. KeyboardInterrupt passes after the child is stopped.
    """
    home = request.endpoints.scratch()
    home.mkdir(parents=True, exist_ok=True)
    remember(home)
    child = WorkflowChild(request.arguments())
    last: dict[str, Any] = {}
    try:
        for event in child:
            show(event)
            if event["event"] in ("run_finished", "run_failed"):
                last = event
        code = child.wait()
    except BaseException:
        child.stop()
        raise
    state = read_run_file(request.endpoints.path("runs") / request.run_id) or {}
    if code != 0 or last.get("event") != "run_finished":
        raise _failure(request, last.get("error") or state.get("error"), code, child.complaints())
    return {**state, "run_id": request.run_id}


def _failure(request: RunRequest, error: Any, code: int, complaints: str) -> PlatformError:
    again = f"fairlead run --resume {request.run_id}"
    if not isinstance(error, dict) or "headline" not in error:
        text = error if isinstance(error, str) and error else complaints or f"it ended with exit code {code}"
        return PlatformError(f"run {request.run_id} failed", detail=text, fix=again, code="run_failed")
    known = PlatformError.from_dict(error)
    fix = f"{known.fix}; then: {again}" if known.fix else again
    context = {**known.context, "run": request.run_id}
    return PlatformError(known.headline, detail=known.detail, fix=fix, code=known.code, **context)
