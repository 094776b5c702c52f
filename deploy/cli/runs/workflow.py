"""Start a run, show its progress, and collect what came of it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from deploy.cli.machine.subprocesses import interrupts_wait
from deploy.cli.profiles.homes import remember
from deploy.cli.runs.workflow_process import WorkflowChild, read_run_file
from deploy.cli.terminal.advice import pasteable, placing_words, resume_command
from deploy.cli.terminal.options import DEFAULT_PROFILE
from pipelines.run import Placing, Run, new_run_id

if TYPE_CHECKING:
    from contracts.endpoints import Endpoints


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What ``fairlead run`` is told of a run, whether it is new or goes on with an earlier one.

    cron: five fields in `timezone` ("" is the cluster's) of a schedule called `name`; empty for one run now.
    """

    overrides: Sequence[str] = ()
    source: str = ""
    no_cache: bool = False
    profile: str = DEFAULT_PROFILE
    placing: Placing = field(default_factory=Placing)
    cron: str = ""
    name: str = ""
    timezone: str = ""

    def for_cluster(self) -> bool:
        """Whether something is told that only a cluster can do."""
        return bool(self.cron or self.name or self.timezone or self.placing != Placing())

    def words(self) -> list[str]:
        """The options that are told for a cluster."""
        schedule = {"--cron": self.cron, "--name": self.name, "--timezone": self.timezone}
        words = [f"{name} {shlex.quote(value)}" for name, value in schedule.items() if value]
        return placing_words(self.placing) + words


def plan_run(endpoints: Endpoints, task: str, recipe: str | None = None, options: RunOptions | None = None) -> Run:
    """A new run of a task; refuses an unknown task, recipe, key or source before anything starts."""
    from deploy.cli.profiles.loading import load_profile
    from pipelines.run_settings import split
    from pipelines.settings import parse_setting
    from pipelines.tasks import get_task
    from pipelines.values import as_document, chosen_config

    told = options or RunOptions()
    found = get_task(task)
    of_task, settings = split(dict(parse_setting(item) for item in told.overrides))
    config = chosen_config(found, recipe or "", {}, of_task)
    run_id = new_run_id(task)
    return Run(
        run_id=run_id,
        task=task,
        config=as_document(config),
        source=source_given(told.source),
        endpoints=endpoints,
        nonce=run_id if told.no_cache else "",
        settings=settings,
        placing=told.placing,
        prices=prices.model_dump() if (prices := load_profile(told.profile).prices) else {},
        profile=told.profile,
    )


def plan_scoring(
    endpoints: Endpoints, model: str, source: str, settings: Mapping[str, Any], out: str, to: str = ""
) -> Run:
    """A batch to score; refuses a source that is not there, a folder that is, or an unknown setting."""
    from pipelines.run_settings import split

    settings, of_run = split(settings)
    if settings:
        from pipelines.steps import batch_clips, batch_groups
        from pipelines.task import data_config

        data_config({}, batch_groups.parted(batch_clips.parted(settings)[0])[0])
    if out and Path(out).exists():
        raise PlatformError(f"{out} exists", fix="remove it, or name a new folder: --out FOLDER", code="exists")
    given = source_given(source)
    if to:
        from pipelines.steps.batch_documents import target_of

        target_of(to, given)
    return Run(
        run_id=new_run_id("score"),
        workflow="batch_scoring",
        config=settings,
        settings=of_run,
        source=given,
        model=model,
        out=out,
        to=to,
        endpoints=endpoints,
        profile=DEFAULT_PROFILE,
    )


def source_given(source: str) -> str:
    """An absolute path or address; refuses a path where nothing is."""
    from pipelines.data.origins import is_address

    if not source or is_address(source):
        return source
    if not Path(source).expanduser().exists():
        raise PlatformError(
            f"source not found: {source}",
            fix="give a CSV, TSV or Parquet file, a folder of them, s3://... or mongodb://host/database/collection; "
            "without it the built-in data is used",
            code="bad_source",
        )
    return str(Path(source).expanduser().absolute())


def execute(run: Run, show: Callable[[dict[str, Any]], None] = lambda event: None) -> dict[str, Any]:
    """Run to the end and return run.json's content; `show` sees every event.

    Raises:
        PlatformError: the run failed; says how to resume. KeyboardInterrupt passes after the child is stopped.
    """
    home = run.where.scratch()
    home.mkdir(parents=True, exist_ok=True)
    remember(home)
    child: WorkflowChild | None = None
    last: dict[str, Any] = {}
    try:
        with interrupts_wait():
            child = WorkflowChild([run.model_dump_json()])
        for event in child:
            show(event)
            if event["event"] in ("run_finished", "run_failed"):
                last = event
        code = child.wait()
    except BaseException:
        if child is not None:
            child.stop()
        raise
    state = read_run_file(run.where.path("runs") / run.run_id) or {}
    if code != 0 or last.get("event") != "run_finished":
        raise _failure(run, last.get("error") or state.get("error"), code, child.complaints())
    return {**state, "run_id": run.run_id}


def _failure(run: Run, error: Any, code: int, complaints: str) -> PlatformError:
    again = resume_command(run.run_id, run.profile)
    if not isinstance(error, dict) or "headline" not in error:
        text = error if isinstance(error, str) and error else complaints or f"it ended with exit code {code}"
        return PlatformError(f"run {run.run_id} failed", detail=text, fix=again, code="run_failed")
    known = PlatformError.from_dict(error)
    context = {**known.context, "run": run.run_id}
    fix = pasteable(known.fix, again)
    return PlatformError(known.headline, detail=known.detail, fix=fix, code=known.code, **context)
