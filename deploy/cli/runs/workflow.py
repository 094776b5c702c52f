"""Start a run, show its progress, and collect what came of it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from contracts.storage import is_remote
from deploy.cli.profiles.homes import remember
from deploy.cli.runs.workflow_process import WorkflowChild, read_run_file
from deploy.cli.terminal.advice import pasteable, resume_command
from deploy.cli.terminal.options import DEFAULT_PROFILE

if TYPE_CHECKING:
    from contracts.endpoints import Endpoints


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """One run: `config` is the JSON text of a task's configuration, `source` is empty for the built-in data.

    nonce: steps of another one do not come from the cache.
    model, out: what scores, and the new folder for the scores; only for the workflow ``batch_scoring``, which has no
        task.
    settings: of the run and not of its task, by dotted key (pipelines/run_settings.py); without effect on this machine.
    changed: what is other than in an earlier attempt, by dotted key.
    """

    run_id: str
    task: str = ""
    recipe: str = ""
    config: str = ""
    source: str = ""
    endpoints: Endpoints
    nonce: str = ""
    workflow: str = "full"
    dataset: str = ""
    promote: bool = True
    model: str = ""
    out: str = ""
    profile: str = DEFAULT_PROFILE
    settings: Mapping[str, Any] = field(default_factory=dict)
    changed: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self) -> list[str]:
        """The command line of ``python -m pipelines run``."""
        given = {
            "--task": self.task,
            "--recipe": self.recipe,
            "--config-json": self.config,
            "--source": self.source,
            "--endpoints": self.endpoints.model_dump_json(),
            "--run-id": self.run_id,
            "--workflow": self.workflow,
            "--nonce": self.nonce,
            "--dataset": self.dataset,
            "--model": self.model,
            "--out": self.out,
            "--settings": json.dumps(dict(self.settings)) if self.settings else "",
        }
        words = [part for key, value in given.items() if value for part in (key, value)]
        return words if self.promote else [*words, "--no-promote"]


def new_run_id(task: str) -> str:
    """A name for a new run that sorts by time: ``fraud-20260102-030405-9f3c``."""
    return f"{task}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def plan_run(
    endpoints: Endpoints,
    task: str,
    recipe: str | None,
    overrides: list[str],
    source: str,
    no_cache: bool,
    profile: str = DEFAULT_PROFILE,
) -> RunRequest:
    """A new run of a task; refuses an unknown task, recipe, key or source before anything starts."""
    from pipelines.run_settings import split
    from pipelines.settings import parse_setting
    from pipelines.tasks import dump_config, get_task, recipe_config

    found = get_task(task)
    of_task, settings = split(dict(parse_setting(item) for item in overrides))
    config = recipe_config(found, recipe, of_task)
    run_id = new_run_id(task)
    return RunRequest(
        run_id=run_id,
        task=task,
        recipe=config.recipe,
        config=dump_config(config),
        source=source_given(source),
        endpoints=endpoints,
        nonce=run_id if no_cache else "",
        profile=profile,
        settings=settings,
    )


def plan_scoring(
    endpoints: Endpoints, model: str, source: str, settings: Mapping[str, Any], out: str, run_id: str = ""
) -> RunRequest:
    """A batch to score; refuses a source that is not there, a folder that is, or an unknown setting."""
    if settings:
        from pipelines.tasks import data_config

        data_config({}, settings)
    if out and Path(out).exists():
        raise PlatformError(f"{out} exists", fix="remove it, or name a new folder: --out FOLDER", code="exists")
    return RunRequest(
        run_id=run_id or new_run_id("score"),
        config=json.dumps(settings) if settings else "",
        source=source_given(source),
        endpoints=endpoints,
        workflow="batch_scoring",
        model=model,
        out=out,
    )


def source_given(source: str) -> str:
    """An absolute path or address; refuses a path where nothing is."""
    if source and not is_remote(source) and not Path(source).expanduser().exists():
        raise PlatformError(
            f"source not found: {source}",
            fix="give a CSV, TSV or Parquet file, a folder of them, or s3://...; without it the built-in data is used",
            code="bad_source",
        )
    return source if not source or is_remote(source) else str(Path(source).expanduser().absolute())


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
    again = resume_command(request.run_id, request.profile)
    if not isinstance(error, dict) or "headline" not in error:
        text = error if isinstance(error, str) and error else complaints or f"it ended with exit code {code}"
        return PlatformError(f"run {request.run_id} failed", detail=text, fix=again, code="run_failed")
    known = PlatformError.from_dict(error)
    context = {**known.context, "run": request.run_id}
    fix = pasteable(known.fix, again)
    return PlatformError(known.headline, detail=known.detail, fix=fix, code=known.code, **context)
