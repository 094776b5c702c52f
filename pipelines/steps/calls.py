"""What each step takes, gives and is called with: workflows, components and tasks of several steps read it here.

A run is a set of values by name: its parameters, and what its steps add. A step is a component with parameters of its
own; `takes` says which value each of them gets. A run's graph is the steps that its task needs, in order (`graph`). KFP
is not imported here: a pod needs it only to be started.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from pipelines.io import events
from pipelines.io.retries import with_retries

if TYPE_CHECKING:
    from pipelines.task import Task

_PREPARE = ("validate", "materialise")
_LEARN = ("build_dataset", "train", "evaluate", "gate", "register")
ORDER: dict[str, tuple[str, ...]] = {
    "ingestion": ("ingest", *_PREPARE),
    "training": (*_PREPARE, *_LEARN),
    "full": ("ingest", *_PREPARE, *_LEARN),
    "batch_scoring": ("batch_score",),
}
"""The steps that a workflow may have, in order."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One step.

    Attributes:
        takes: parameter of the step -> the run's value that it gets.
        artifact: parameter that says where the step writes, and name of what it wrote among the run's values.
        made: the run's value -> output of the component, for what is not a file.
        first: it may be the first of a run, and checks that this is the code that the run was started with.
        optional: those of `takes` that no step makes in the graph of a task that does not need it.
        needed: whether a task has the step in its graph.
        like: of a step that a task adds: the step that it is after, whose needs it has.
    """

    call: Callable[..., Any]
    takes: Mapping[str, str]
    artifact: tuple[str, str]
    made: Mapping[str, str] = field(default_factory=dict)
    first: bool = False
    optional: frozenset[str] = frozenset()
    needed: Callable[[Task], bool] = lambda task: True
    like: str = ""

    def given(self, has: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
        """`takes`, without what is optional and not there."""
        return ((name, value) for name, value in self.takes.items() if name not in self.optional or has(value))


def graph(workflow: str, task: Task | None = None) -> dict[str, Call]:
    """The steps of `workflow` that `task` needs, in order, with their calls; for None those that any task may need.

    Raises:
        PlatformError: ``code="bad_workflow"``.
    """
    if workflow not in ORDER:
        raise PlatformError(
            f"unknown workflow {workflow!r}", fix=f"pick one of: {', '.join(ORDER)}", code="bad_workflow"
        )
    if task is None:
        return {step: CALLS[step] for step in ORDER[workflow]}
    found: dict[str, Call] = {}
    added = _added(task)
    for step in ORDER[workflow]:
        if CALLS[step].needed(task):
            found |= {step: CALLS[step], **{name: call for name, call in added.items() if call.like == step}}
    return found


def _added(task: Task) -> dict[str, Call]:
    """The steps that a task and its problem add."""
    from pipelines.steps.added import MADE, added_steps

    found = {}
    for name, step in added_steps(task, CALLS).items():
        config = "data_config" if step.after == "validate" else "train_config"
        reads = {MADE[each]: MADE[each] for each in (step.after, *step.takes)}
        found[name] = Call(
            call=functools.partial(_work, name),
            takes=_same("task", "checkpoints", "code_version", "nonce", config=config, **reads),
            artifact=("out", MADE[step.after]),
            like=step.after,
        )
    return found


def call_of(step: str, task: str) -> Call:
    """The call of a step, which may be one that the task adds."""
    if step in CALLS:
        return CALLS[step]
    from pipelines.tasks import get_task

    return _added(get_task(task))[step]


def steps_of(task: Task | None, workflow: str = "full") -> tuple[str, ...]:
    """The steps of `graph` by name."""
    return tuple(graph(workflow, task))


def needs_of(calls: Mapping[str, Call]) -> dict[str, list[str]]:
    """Step -> the steps whose output it takes, for the steps of a graph in order."""
    made: dict[str, str] = {}
    needs: dict[str, list[str]] = {}
    for step, call in calls.items():
        found = {made[value] for value in call.takes.values() if value in made}
        needs[step] = [before for before in calls if before in found]
        made |= dict.fromkeys((call.artifact[1], *call.made), step)
    return needs


def workflow_called(name: str) -> str:
    """The workflow that an object of Kubeflow is of, by the object's name: ``batch-scoring-x2k4f``."""
    found = name.rpartition("-")[0].replace("-", "_")
    return found if found in ORDER else "full"


def run_step(step: str, given: Mapping[str, Any]) -> Any:
    """Run a step in this process, reported by events; `given` has the arguments of its component. Returns its result.

    A step is imported after its start is reported, so that its time includes all that it costs.
    """
    from pipelines.values import endpoints, run_id

    found = call_of(step, given["task"]) if "task" in given else CALLS[step]
    names = [*found.takes, found.artifact[0]]
    values = {name: getattr(given[name], "path", given[name]) for name in names}
    checked = {"task": values["task"], "code_version": values["code_version"]} if found.first else {}
    about: dict[str, Any] = {}
    if found.first or "run" in values:  # a schedule gives its runs no name: the first step makes it, the last needs it
        about["run_id"] = run_id(values["task"], values.get("run", ""), os.environ)
        values |= {name: about["run_id"] for name in ("run",) if name in values}
    with events.running(step, **checked, about=about) as done:
        if "endpoints" in values:
            values["endpoints"] = endpoints(values["endpoints"], os.environ).model_dump_json()
        result = call_step(step, found, values)
        done(result)
    return result


def call_step(step: str, found: Call, values: Mapping[str, Any]) -> Any:
    """Do the work of a step, again where a server did not answer; `values` are its arguments, files as paths."""
    return with_retries(step, functools.partial(found.call, **values), fresh=str(values[found.artifact[0]]))


def version_made(manifest: str) -> tuple[str, str]:
    """Address and name of the version that ingest made, of which `manifest` is a copy."""
    from pipelines.data import versions
    from pipelines.io.files import read_json

    return versions.address(manifest), str(read_json(manifest)["version"])


def _ingest(*, task: str, config: str, source: str, endpoints: str, manifest: str, **_: Any) -> dict[str, Any]:
    from contracts.endpoints import Endpoints
    from pipelines.data import versions
    from pipelines.steps import ingest

    root = Endpoints.model_validate_json(endpoints).uri("data")
    version = ingest.ingest(task, config, source, root, manifest)
    return {"version": version, **versions.summary(manifest)}


def _validate(*, task: str, config: str, dataset: str, clean: str, **_: Any) -> Any:
    from pipelines.steps import validate

    return validate.validate(task, config, dataset, clean)


def _materialise(
    *, task: str, config: str, clean: str, data_version: str, endpoints: str, features: str, **_: Any
) -> Any:
    from pipelines.steps import materialise

    return materialise.materialise(task, config, clean, data_version, endpoints, features)


def _build_dataset(*, task: str, config: str, clean: str, dataset: str, features: str | None = None, **_: Any) -> Any:
    from pipelines.steps import build_dataset

    return build_dataset.build_dataset(task, config, clean, features or "", dataset)


def _train(
    *, task: str, config: str, dataset: str, checkpoints: str, spread: str, model: str, key: str = "", **rest: Any
) -> Any:
    from pipelines.steps import train

    # A task of several steps knows the data set by its key; where its files are differs between pods.
    decides = [key] if key else [task, config, dataset, rest["code_version"], rest["nonce"]]
    return train.train(task, config, dataset, train.checkpoint_folder(checkpoints, *decides), model, spread)


def _evaluate(
    *,
    task: str,
    config: str,
    dataset: str,
    model: str,
    data_version: str,
    source: str,
    code_version: str,
    candidate: str,
    **_: Any,
) -> Any:
    import json

    from pipelines.steps import evaluate

    lineage = {"code_version": code_version, "data_version": data_version, "source": source or "built-in"}
    return evaluate.evaluate(task, config, dataset, model, json.dumps(lineage), candidate)


def _gate(*, task: str, config: str, dataset: str, candidate: str, endpoints: str, decision: str, **_: Any) -> Any:
    from pipelines.steps import gate

    return {"passed": gate.gate(task, config, dataset, candidate, endpoints, decision)}


def _register(
    *,
    task: str,
    config: str,
    candidate: str,
    decision: str,
    endpoints: str,
    run: str,
    promote: bool,
    published: str,
    **_: Any,
) -> Any:
    from pipelines.steps import register

    return register.register(task, config, candidate, decision, endpoints, run, promote, published)


def _batch_score(*, model: str, source: str, endpoints: str, settings: str, scores: str, **_: Any) -> Any:
    from pipelines.steps import batch_score

    return batch_score.batch_score(model, source, endpoints, scores, settings)


def _work(step: str, /, *, task: str, config: str, checkpoints: str, out: str, key: str = "", **given: Any) -> Any:
    from pipelines.steps.added import MADE, added
    from pipelines.steps.train import checkpoint_folder

    paths = {made: given[name] for made, name in MADE.items() if name in given}
    decides = [key] if key else [step, task, config, given["code_version"], given["nonce"], *paths.values()]
    return added(step, task, config, paths, checkpoint_folder(checkpoints, *decides), out)


def _same(*names: str, **others: str) -> dict[str, str]:
    return {**{name: name for name in names}, **others}


# `store`, `nonce` and `code_version` are used by few calls: they are part of the cache's key, because no cache sees the
# code of a package or what was deleted from a store.
CALLS: dict[str, Call] = {
    "ingest": Call(
        call=_ingest,
        takes=_same("task", "source", "endpoints", "code_version", "nonce", config="data_config"),
        artifact=("manifest", "manifest"),
        made={"dataset": "dataset", "data_version": "version"},
        first=True,
    ),
    "validate": Call(
        call=_validate,
        takes=_same("task", "dataset", "code_version", "nonce", config="data_config"),
        artifact=("clean", "clean"),
        first=True,
    ),
    "materialise": Call(
        call=_materialise,
        takes=_same(
            "task", "clean", "data_version", "endpoints", "code_version", "store", "nonce", config="data_config"
        ),
        artifact=("features", "features"),
        needed=lambda task: task.feature_service is not None,
    ),
    "build_dataset": Call(
        call=_build_dataset,
        takes=_same("task", "clean", "features", "code_version", "nonce", config="data_config"),
        artifact=("dataset", "built"),
        optional=frozenset({"features"}),
    ),
    "train": Call(
        call=_train,
        takes=_same("task", "checkpoints", "code_version", "nonce", "spread", config="train_config", dataset="built"),
        artifact=("model", "model"),
    ),
    "evaluate": Call(
        call=_evaluate,
        takes=_same("task", "config", "model", "data_version", "source", "code_version", "nonce", dataset="built"),
        artifact=("candidate", "candidate"),
    ),
    "gate": Call(
        call=_gate,
        takes=_same("task", "config", "candidate", "endpoints", dataset="built"),
        artifact=("decision", "decision"),
    ),
    "register": Call(
        call=_register,
        takes=_same("task", "config", "candidate", "decision", "endpoints", "run", "promote"),
        artifact=("published", "published"),
    ),
    "batch_score": Call(
        call=_batch_score, takes=_same("model", "source", "endpoints", "settings"), artifact=("scores", "scores")
    ),
}
