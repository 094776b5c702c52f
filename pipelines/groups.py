"""The steps of one KFP task, one after the other in this process: each with its own events and entry in the cache.

A task costs a quarter of a minute on a cluster, whatever it does; a step costs what it works. What a step made is kept
in the store as soon as it ends, so a pod that is started again, and the next run, go on behind it; it is fetched only
when a step that runs needs it. One process, because the libraries that steps share take seconds to load, on a laptop
as in a pod.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from contracts import storage
from contracts.errors import PlatformError
from pipelines.code_version import require
from pipelines.grouping import GROUPS
from pipelines.io import events
from pipelines.io.record import open_record
from pipelines.io.step_cache import OUT, StepCache, fetch, step_key
from pipelines.lint import MAX_ARGUMENT_BYTES
from pipelines.parameters import run_of
from pipelines.resources import STEPS
from pipelines.run import Run
from pipelines.search_space import SEARCH_PODS
from pipelines.steps.calls import CALLS, Call, call_step, graph, steps_of, version_made, workflow_called
from pipelines.tasks import get_task
from pipelines.values import values_of

# Where something is and how a run is called decides nothing about what a step makes; neither does who trains.
_NO_PART_OF_KEYS = {"endpoints", "checkpoints", "run", "promote", "distributed_job"}
_SHOWN = {"manifest", "built", "candidate", "decision", "published"}


def begin(given: Mapping[str, Any]) -> tuple[str, str]:
    """Run the first task of a run; `given` are the arguments of its component.

    What it was compiled with may be the steps of any task: of them, the run's own task has those that it needs.

    Returns:
        What training must know, the same for every run that trains the same, and what the task after it must know.
    """
    named = given["steps"].split(",")
    asked = {name: value for name, value in given.items() if isinstance(value, str | bool)}
    try:
        wanted = run_of(asked, os.environ, "full" if named[0] == "ingest" else "training")
        values = values_of(wanted)
        if "register" not in named:
            _refuse_too_much(values)
    except PlatformError as err:
        with events.running(named[0]):
            raise err from None
    _note(wanted, values)
    with StepCache(values["steps"]).scratch() as folder:
        run = Group(values, {}, folder, expected=wanted.code_version)
        run.run(named)
        if os.environ.get(SEARCH_PODS):
            _search(run, None)
        _fill(run, given)
    return run.written(taken(run.calls, "train")), run.written(taken(run.calls, "train", "judge"))


def go_on(given: Mapping[str, Any]) -> str:
    """Run a later task; `given` are the arguments of its component. Returns what its steps have added."""
    values: dict[str, Any] = {}
    artifacts: dict[str, str] = {}
    for text in (given["values"], given.get("trained", "")):
        if text:
            known = json.loads(text)
            values |= known["values"]
            artifacts |= known["artifacts"]
    with StepCache(values["steps"]).scratch() as folder:
        run = Group(values, artifacts, folder)
        run.run(given["steps"].split(","))
        _fill(run, given)
    return run.written({CALLS[step].artifact[1] for step in GROUPS["train"]})


def try_out(given: Mapping[str, Any]) -> None:
    """Be one pod of a search: work on its trials; `given` are the arguments of the component."""
    known = json.loads(given["values"])
    with StepCache(known["values"]["steps"]).scratch() as folder:
        _search(Group(known["values"], known["artifacts"], folder), int(given["worker"]))


def _search(run: Group, worker: int | None) -> None:
    """Make the study of a run, before its pods begin, or be the pod `worker`; nothing where the training is known.

    A failure is the training's.
    """
    from pipelines.search.run_search import made_study, prepared, work_in_pod
    from pipelines.tasks import load_config

    try:
        if run.kept("train"):
            return
        task = get_task(run.values["task"])
        with tempfile.TemporaryDirectory(prefix="fairlead-search-") as name:
            dataset = run.path("built")
            config, job = prepared(task, load_config(task, json.dumps(run.values["train_config"])), dataset, Path(name))
            if worker is None:
                made_study(task, config, job, dataset)
            else:
                work_in_pod(job, config, worker)
    except Exception as err:
        with events.running("train"):
            raise events.named(err, "the search") from err


class Group:
    """A run as far as this process knows it.

    Attributes:
        values: by name, see `pipelines.steps.calls`.  artifacts: name -> address of what a step made.
        expected: the code that the run was started with; "" is any.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        artifacts: Mapping[str, str],
        scratch: Path,
        expected: str = "",
        calls: Mapping[str, Call] | None = None,
    ) -> None:
        self.values, self.artifacts, self.expected = dict(values), dict(artifacts), expected
        self._scratch = scratch
        self.calls = calls if calls is not None else graph("full", get_task(values["task"]))
        self._cache = StepCache(values["steps"])
        self._here: dict[str, Path] = {}

    def run(self, named: Collection[str]) -> None:
        """Run those of the steps `named` that the task needs, in order.

        A failure ends the process as it ends that of a single step.
        """
        steps = [step for step, call in self.calls.items() if (call.like or step) in named]
        for at, step in enumerate(steps):
            self._step(step)
            self._forget(steps[at + 1 :])

    def path(self, artifact: str) -> Path:
        """What a step made, on this disk."""
        if artifact not in self._here:
            self._here[artifact] = fetch(self.artifacts[artifact], self._scratch / "fetched" / self._named(artifact))
        return self._here[artifact]

    def written(self, names: Collection[str]) -> str:
        """Those of the values and artifacts that the run has, for another task to read."""
        document = {
            "values": {name: value for name, value in self.values.items() if name in names},
            "artifacts": {name: address for name, address in self.artifacts.items() if name in names},
        }
        return json.dumps(document, sort_keys=True)

    def key(self, step: str) -> str:
        """What decides what `step` makes."""
        inputs = self.calls[step].inputs(self.has).items()
        given = {name: self._named(value) for name, value in inputs if name not in _NO_PART_OF_KEYS}
        if step == "materialise":  # it fills a store that this run's readers look into
            places = self.values["endpoints"]
            given["places"] = [places["features"], places["online"]]
        return step_key(step, given)

    def kept(self, step: str) -> bool:
        """Whether the cache has what `step` would make."""
        try:
            return self._cache.find(step, self.key(step)) is not None
        except PlatformError:  # a store that is away is the step's to report
            return False

    def _named(self, value: str) -> Any:
        """A value, or the key of an artifact."""
        return self.artifacts[value].split("/")[-2] if value in self.artifacts else self.values[value]

    def _step(self, step: str) -> None:
        call = self.calls[step]
        if not STEPS[call.like or step].cached:
            self._work(step, "")
            return
        key = self.key(step)
        entry = None
        with contextlib.suppress(PlatformError):  # a store that is away is the step's to report
            entry = self._cache.find(step, key)
        if entry is None:
            self._work(step, key)
        else:
            self.artifacts[call.artifact[1]] = entry.address
            self._drop(call.artifact[1])  # what it was made of
            events.cached(step, entry.result)

    def _work(self, step: str, key: str) -> None:
        call = self.calls[step]
        parameter, artifact = call.artifact
        about = Run(task=self.values["task"], code_version=self.expected) if call.first else Run()
        _forget_peak()
        with events.running(step, about) as done:
            if call.first:
                require(self.values["task"], self.expected)
            given = {
                name: str(self.path(value)) if self.has(value) else self.values[value]
                for name, value in call.inputs(self.has).items()
            }
            folder = Path(tempfile.mkdtemp(prefix=f"{step}-", dir=self._scratch))
            address = self._cache.address(step, key) if key else ""
            told = {parameter: str(folder / OUT), "key": key, "kept": storage.join(address, OUT) if key else ""}
            try:
                result = call_step(step, call, {**given, **told})
            except PlatformError:
                if key:
                    with contextlib.suppress(PlatformError):  # the failure is what matters
                        self._cache.leave(address, folder)
                raise
            self._drop(artifact)
            self._here[artifact] = folder / OUT
            if key:
                self.artifacts[artifact] = self._cache.keep(address, folder, result).address
                if not storage.is_remote(address):  # moved there
                    self._here[artifact] = Path(address) / OUT
            if step == "ingest":
                self.values["dataset"], self.values["data_version"] = version_made(str(folder / OUT))
            done(result)
        gc.unfreeze()  # the end of a step freezes all that is there, because most processes end with it
        gc.collect()

    def has(self, value: str) -> bool:
        """Whether `value` is what a step of the run made."""
        return value in self.artifacts or value in self._here

    def _forget(self, later: Sequence[str]) -> None:
        """Delete from this disk what no later step takes."""
        needed = {value for step in later for value in self.calls[step].takes.values()} | _SHOWN
        for name in set(self._here) - needed:
            self._drop(name)

    def _drop(self, artifact: str) -> None:
        path = self._here.pop(artifact, None)
        if path and path.is_relative_to(self._scratch):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def taken(calls: Mapping[str, Call], *groups: str) -> set[str]:
    """What KFP tasks of these groups must be given, of which some may be made by themselves."""
    own = {step for group in groups for step in GROUPS[group]}
    found = [call for step, call in calls.items() if (call.like or step) in own]
    return {"steps", *(value for call in found for value in call.inputs(lambda value: True).values())}


def _refuse_too_much(values: Mapping[str, Any]) -> None:
    names = taken(graph("full", get_task(values["task"])), "train", "judge")
    size = len(json.dumps({name: value for name, value in values.items() if name in names}).encode())
    if size > MAX_ARGUMENT_BYTES:
        raise PlatformError(
            f"the settings of this run have {size:,} bytes, and at most {MAX_ARGUMENT_BYTES:,} go from task to task",
            detail="the largest are usually data.columns and labels of a recipe",
            fix="run all steps in one task, which passes nothing on: leave out what asks for more, or make them fewer",
            code="unsafe_workflow",
        )


def _note(run: Run, values: Mapping[str, Any]) -> None:
    """Leave in the record what the run was asked, where it was not the command line that started it."""
    if record := open_record(os.environ):
        workflow = workflow_called(record.workflow)
        known = run.having(workflow=workflow, source=values["source"], code_version=values["code_version"])
        record.write_run(known, {"steps": steps_of(get_task(run.task), workflow)})
        record.close()


def _fill(run: Group, outputs: Mapping[str, Any]) -> None:
    """Write what Kubeflow's page shows of the task's steps. These are pictures: one that fails ends no run."""
    for draw, names in ((_draw_data, ("data_report",)), (_draw_model, ("metrics", "classes", "card", "gate"))):
        wanted = {name: outputs[name] for name in names if name in outputs}
        try:
            if wanted:
                draw(run, **wanted)
        except Exception as err:  # noqa: BLE001  whatever a picture fails for, the run is done
            warnings.warn(f"Kubeflow's page shows no {names[0]} of this run: {err}", stacklevel=2)


def _draw_data(run: Group, data_report: Any) -> None:
    from pipelines.pages import kubeflow
    from pipelines.pages.data_report import FILE

    if run.has("candidate"):  # the evaluation has drawn it already
        shutil.copyfile(run.path("candidate") / FILE, data_report.path)
    elif run.has("built"):
        kubeflow.fill_data(
            str(run.path("built")), str(run.path("manifest")) if run.has("manifest") else "", data_report
        )


def _draw_model(run: Group, metrics: Any, classes: Any, card: Any, gate: Any) -> None:
    from pipelines.pages import kubeflow

    kubeflow.fill_evaluation(str(run.path("candidate")), metrics, classes, card)
    kubeflow.fill_gate(str(run.path("decision")), gate)
    kubeflow.fill_card(str(run.path("published")), card)


def _forget_peak() -> None:
    """Let the kernel count the highest use of memory anew, so that each step has its own; Linux only."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
