"""Tasks and runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from fairlead.guard import endpoints_of, profile_name, told
from fairlead.progress import progress_shown
from fairlead.tables import Listing, Page, html_table, text_table


@dataclass(frozen=True)
class Run:
    """A run as it stands, or stood when it was looked at.

    Attributes:
        document: all that is known of it; what ``fairlead runs RUN --json`` prints.
    """

    document: Mapping[str, Any] = field(repr=False)

    @property
    def run_id(self) -> str:
        return str(self.document["run_id"])

    @property
    def task(self) -> str:
        return str(self.document.get("task") or "")

    @property
    def recipe(self) -> str:
        return str(self.document.get("recipe") or "")

    @property
    def status(self) -> str:
        """succeeded, refused (by the gate), failed, dead (its process is gone), cancelled, running or waiting."""
        return str(self.document["status"])

    @property
    def seconds(self) -> float | None:
        return self.document.get("seconds")

    @property
    def model(self) -> str:
        """The version that it has made, ``fraud:3``; "" where it has made none."""
        result = self.document.get("result") or {}
        return f"{result['name']}:{result['version']}" if "version" in result else ""

    @property
    def champion(self) -> bool:
        """Whether its model became the champion."""
        return bool((self.document.get("result") or {}).get("champion"))

    @property
    def metrics(self) -> dict[str, float]:
        """Of its model, on the test rows."""
        return dict(self.document.get("metrics") or {})

    @property
    def steps(self) -> Listing[tuple[str, Mapping[str, Any]]]:
        """Each step with its status and the seconds it took."""
        found = (self.document.get("steps") or {}).items()
        return Listing(
            found, lambda item: {"step": item[0], "status": item[1].get("status"), "seconds": item[1].get("seconds")}
        )

    @property
    def gate(self) -> Listing[Mapping[str, Any]]:
        """The checks of the gate."""
        return gate_listing(self.document.get("gate"))

    @property
    def cost(self) -> dict[str, Any]:
        """Hours of cores, memory and GPUs, and money at the prices of the profile, by step; of `get_run`, else {}."""
        return dict(self.document.get("cost") or {})

    @property
    def card(self) -> Page | None:
        """The card of its model."""
        path = self.document.get("model_card")
        return Page(Path(path)) if path else None

    @property
    def error(self) -> str:
        """Why it failed and what to do; "" where it has not failed."""
        from contracts.errors import PlatformError

        found = self.document.get("error")
        return str(PlatformError.from_dict(dict(found)) if isinstance(found, Mapping) else found or "")

    def cells(self) -> dict[str, Any]:
        """A row of a table of runs."""
        return {
            "run": self.run_id,
            "status": self.status,
            "recipe": self.recipe,
            "started": str(self.document.get("started") or "")[:16].replace("T", " "),
            "seconds": self.seconds,
            "model": self.model or self.error.partition("\n")[0],
        }

    def __repr__(self) -> str:
        return "\n".join(filter(None, [text_table([self.cells()]), repr(self.gate) if self.gate else "", self.error]))

    def _repr_html_(self) -> str:
        error = f"<pre>{escape(self.error)}</pre>" if self.error else ""
        return html_table([self.cells()]) + (self.gate._repr_html_() if self.gate else "") + error


def gate_listing(gate: Mapping[str, Any] | None) -> Listing[Mapping[str, Any]]:
    """The checks of a gate's decision as a table."""

    def cells(check: Mapping[str, Any]) -> dict[str, Any]:
        passed = "ok" if check["passed"] else "refused"
        return {name: check[name] for name in ("metric", "value", "rule", "limit", "against")} | {"": passed}

    verdict = "" if gate is None else f"Gate: {'passed' if gate['passed'] else 'refused'}"
    if gate and gate.get("champion"):
        verdict += f", compared with {gate['champion']}"
    return Listing((gate or {}).get("checks") or [], cells, [verdict or "no gate"], verdict)


@told
def tasks() -> Listing[dict[str, Any]]:
    """What can be predicted: each task with its recipes."""
    from deploy.cli.training.run_listing import all_tasks

    shown = ("name", "title", "modality", "default_recipe", "recipes")
    return Listing(all_tasks(), lambda task: {name: task[name] for name in shown})


@told
def run(
    task: str | None = None,
    *,
    recipe: str | None = None,
    settings: Mapping[str, Any] | None = None,
    source: str | Path = "",
    resume: str | None = None,
    cache: bool = True,
    promote: bool = True,
    progress: bool = True,
    profile: str | None = None,
) -> Run:
    """Train a task from raw data to a registered model, and wait for it.

    Args:
        settings: changes to the recipe by dotted names, ``{"split.train_days": 14}``; as ``--set`` does.
        source: a file, a folder of files or an address; "" is the task's built-in data.
        resume: go on with this run, which failed, instead of a new one of `task`.
        cache: False runs steps again that are unchanged.
        promote: whether a model that the gate lets through becomes the champion.
        progress: whether the steps are shown while they run.

    Returns:
        The run; a model that the gate refused is no error, its status is ``refused``.

    Raises:
        PlatformError: an unknown task, recipe, setting or source; or a step failed, with the way to go on.
    """
    from deploy.cli.profiles.loading import load_profile
    from deploy.cli.runs.workflow import RunOptions, execute
    from deploy.cli.training.start_run import build_report, planned
    from pipelines.settings import assigned

    name = profile_name(profile)
    where, endpoints = load_profile(name), endpoints_of(name)
    overrides = [assigned(key, value) for key, value in (settings or {}).items()]
    options = RunOptions(overrides=overrides, source=str(source), no_cache=not cache, profile=name)
    plan = planned(where, endpoints, task, recipe, resume, options)
    plan = plan if promote else plan.having(promote=False)
    with progress_shown(progress) as show:
        if where.cluster is None:
            state = execute(plan, show)
        else:
            from deploy.cli.cluster_runs.execution import execute_on_cluster

            state = execute_on_cluster(where, plan, True, show)
    return Run(build_report(endpoints, state))


@told
def runs(limit: int = 20, *, profile: str | None = None) -> Listing[Run]:
    """The latest runs, newest first; of a cluster, those that anybody started."""
    from deploy.cli.training.run_listing import latest_runs

    found, empty = latest_runs(profile_name(profile), limit)
    return Listing(map(Run, found), Run.cells, empty)


@told
def get_run(run_id: str, *, profile: str | None = None) -> Run:
    """One run with its steps, its error, and the gate and metrics of its model; a unique start of its id will do.

    Raises:
        PlatformError: ``code="unknown_run"``.
    """
    from deploy.cli.training.run_listing import found_run, report_of

    name = profile_name(profile)
    return Run(report_of(name, found_run(name, run_id)[0]))
