"""What each step takes, gives and is called with: workflows, components and tasks of several steps read it here.

A run is a set of values by name: what follows from what was asked, and what its steps add. A step is told some of them
in its context and takes others by name (`Call`). A run's graph is the steps that its task needs, in order (`graph`).
KFP is not imported here: a pod needs it only to be started.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from pipelines.data_engines import opened
from pipelines.io import events
from pipelines.io.retries import with_retries
from pipelines.run import Run

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
        call: does the work; it is given what the step is called with, by name.
        told: name -> the run's value: what the step is told in its context. It decides, with `takes`, what it makes.
        takes: parameter -> the run's value that is not in the context: what other steps made, and what a page, a client
            or a schedule names by itself.
        artifact: parameter that says where the step writes, and name of what it wrote among the run's values.
        made: the run's value -> output of the component, for what is not a file.
        first: it may be the first of a run, and checks that this is the code that the run was started with.
        optional: those of `takes` that no step makes in the graph of a task that does not need it.
        needed: whether a task has the step in its graph.
        like: of a step that a task adds: the step that it is after, whose needs it has.
    """

    call: Callable[[dict[str, Any]], Any]
    takes: Mapping[str, str]
    artifact: tuple[str, str]
    told: Mapping[str, str] = field(default_factory=dict)
    made: Mapping[str, str] = field(default_factory=dict)
    first: bool = False
    optional: frozenset[str] = frozenset()
    needed: Callable[[Task], bool] = lambda task: True
    like: str = ""

    def given(self, has: Callable[[str], bool]) -> dict[str, str]:
        """`takes`, without what is optional and not there."""
        return {name: value for name, value in self.takes.items() if name not in self.optional or has(value)}

    def inputs(self, has: Callable[[str], bool]) -> dict[str, str]:
        """All that the step is called with: `told` and `given`."""
        return {**self.told, **self.given(has)}

    def context(self, values: Mapping[str, Any]) -> str:
        """What the step is told of a run with these values, as JSON."""
        return json.dumps({name: values[value] for name, value in self.told.items()}, ensure_ascii=False)


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
            told=_same("task", "endpoints", "forgotten", "checkpoints", "code_version", "nonce", config=config),
            takes=reads,
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


def named_inputs(calls: Mapping[str, Call]) -> list[str]:
    """The values that a run with the steps of a graph must be given by name, because no step of it makes them."""
    made: set[str] = set()
    found: dict[str, None] = {}
    for call in calls.values():
        found |= dict.fromkeys(value for value in call.given(made.__contains__).values() if value not in made)
        made |= {call.artifact[1], *call.made}
    return list(found)


def contexts(calls: Mapping[str, Call], values: Mapping[str, Any]) -> dict[str, str]:
    """Step -> its context (`Call.context`), for those that have one."""
    return {step: call.context(values) for step, call in calls.items() if call.told}


def workflow_called(name: str) -> str:
    """The workflow that an object of Kubeflow is of, by the object's name: ``batch-scoring-x2k4f``."""
    found = name.rpartition("-")[0].replace("-", "_")
    return found if found in ORDER else "full"


def run_step(step: str, given: Mapping[str, Any]) -> Any:
    """Run a step in this process, reported by events; `given` has the arguments of its component. Returns its result.

    A step is imported after its start is reported, so that its time includes all that it costs.
    """
    from pipelines.values import endpoints, run_id

    told = json.loads(given.get("context", "{}"))
    found = call_of(step, told.get("task", ""))
    names = [*found.takes, found.artifact[0]]
    values = told | {name: getattr(given[name], "path", given[name]) for name in names}
    about = {"task": told["task"], "code_version": told["code_version"]} if found.first else {}
    if found.first or "run" in values:  # a schedule gives its runs no name: the first step makes it, the last needs it
        about["run_id"] = run_id(told["task"], values.get("run", ""), os.environ)
        values |= {"run": about["run_id"]} if "run" in values else {}
    with events.running(step, Run.model_validate(about)) as done:
        if found.first:
            from pipelines.code_version import require

            require(told["task"], told["code_version"])
        if "endpoints" in values:
            values["endpoints"] = endpoints(values["endpoints"], os.environ).model_dump()
        result = call_step(step, found, values)
        done(result)
    return result


def call_step(step: str, found: Call, values: Mapping[str, Any]) -> Any:
    """Do the work of a step, again where a server did not answer.

    Args:
        values: its arguments. Files are paths, and documents go to the step as JSON.
    """
    given = {name: json.dumps(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    with opened(step), _left_out(values):
        return with_retries(step, functools.partial(found.call, given), fresh=str(given[found.artifact[0]]))


def _left_out(values: Mapping[str, Any]) -> contextlib.AbstractContextManager[None]:
    """Nothing that a step with these arguments reads has rows of who is forgotten."""
    from contracts.endpoints import Endpoints
    from pipelines.data.forgotten import leaving_out

    known = "task" in values and "endpoints" in values
    root = Endpoints.model_validate(values["endpoints"]).uri("data") if known else ""
    return leaving_out(root, values["task"] if known else "")


def version_made(manifest: str) -> tuple[str, str]:
    """Address and name of the version that ingest made, of which `manifest` is a copy."""
    from pipelines.data import versions
    from pipelines.io.files import read_json

    return versions.address(manifest), str(read_json(manifest)["version"])


def _ingest(given: dict[str, Any]) -> dict[str, Any]:
    from contracts.endpoints import Endpoints
    from pipelines.data import versions
    from pipelines.steps import ingest

    where = Endpoints.model_validate_json(given["endpoints"])
    asked = (given["task"], given["config"], given["source"], where.uri("data"), given["manifest"])
    version = ingest.ingest(*asked, where.documents)
    return {"version": version, **versions.summary(given["manifest"])}


def _validate(given: dict[str, Any]) -> Any:
    from pipelines.steps import validate

    return validate.validate(*_of({"kept": "", **given}, "task", "config", "dataset", "clean", "kept"))


def _materialise(given: dict[str, Any]) -> Any:
    from pipelines.steps import materialise

    return materialise.materialise(*_of(given, "task", "config", "clean", "data_version", "endpoints", "features"))


def _build_dataset(given: dict[str, Any]) -> Any:
    from pipelines.steps import build_dataset

    called = {**given, "features": given.get("features") or ""}
    return build_dataset.build_dataset(*_of(called, "task", "config", "clean", "features", "dataset"))


def _train(given: dict[str, Any]) -> Any:
    from pipelines.steps import train

    place = _checkpoints(given, *_of(given, "task", "config", "dataset", "code_version", "nonce"))
    called = {"hub": "", "ledger": "", **given, "checkpoints": place}  # as in runs that began before there were such
    return train.train(
        *_of(called, "task", "config", "dataset", "checkpoints", "model", "distributed_job", "hub", "ledger")
    )


def _evaluate(given: dict[str, Any]) -> Any:
    from pipelines.steps import evaluate

    lineage = {name: given[name] for name in ("code_version", "data_version")}
    called = {**given, "lineage": json.dumps({**lineage, "source": given["source"] or "built-in"})}
    return evaluate.evaluate(*_of(called, "task", "config", "dataset", "model", "lineage", "candidate"))


def _gate(given: dict[str, Any]) -> Any:
    from pipelines.steps import gate

    return {"passed": gate.gate(*_of(given, "task", "config", "dataset", "candidate", "endpoints", "decision"))}


def _register(given: dict[str, Any]) -> Any:
    from pipelines.steps import register

    made = _of(given, "candidate", "decision", "endpoints", "run", "promote", "published")
    return register.register(given["task"], given["config"], *made)


def _batch_score(given: dict[str, Any]) -> Any:
    from pipelines.steps import batch_score

    return batch_score.batch_score(
        *_of({"to": "", **given}, "model", "source", "endpoints", "scores", "settings", "to")
    )


def _work(step: str, given: dict[str, Any]) -> Any:
    from pipelines.steps.added import MADE, added

    paths = {made: given[name] for made, name in MADE.items() if name in given}
    place = _checkpoints(given, step, *_of(given, "task", "config", "code_version", "nonce"), *paths.values())
    return added(step, given["task"], given["config"], paths, place, given["out"])


def _checkpoints(given: Mapping[str, Any], *decides: str) -> str:
    """Where the step keeps what it needs to go on; a task of several steps knows it by the step's key.

    There the key says what `decides` says, because where the files of other steps are differs between pods.
    """
    from pipelines.steps.train import checkpoint_folder

    key = given.get("key")
    return checkpoint_folder(given["checkpoints"], *([key] if key else decides))


def _of(given: Mapping[str, Any], *names: str) -> list[Any]:
    return [given[name] for name in names]


def _same(*names: str, **others: str) -> dict[str, str]:
    return {**{name: name for name in names}, **others}


# `store`, `forgotten`, `beside`, `nonce` and `code_version` are used by few calls: they are part of the cache's key,
# because no cache sees the code of a package, what was deleted from a store, whose rows are left out of what a step
# reads, or what is in the files that it reads beside the source.
CALLS: dict[str, Call] = {
    "ingest": Call(
        call=_ingest,
        told=_same("task", "source", "endpoints", "code_version", "nonce", config="data_config"),
        takes={},
        artifact=("manifest", "manifest"),
        made={"dataset": "dataset", "data_version": "version"},
        first=True,
    ),
    "validate": Call(
        call=_validate,
        told=_same("task", "code_version", "nonce", config="data_config"),
        takes=_same("dataset"),
        artifact=("clean", "clean"),
        first=True,
    ),
    "materialise": Call(
        call=_materialise,
        told=_same("task", "endpoints", "forgotten", "beside", "code_version", "store", "nonce", config="data_config"),
        takes=_same("clean", "data_version"),
        artifact=("features", "features"),
        needed=lambda task: task.feature_service is not None,
    ),
    "build_dataset": Call(
        call=_build_dataset,
        told=_same("task", "endpoints", "forgotten", "beside", "code_version", "nonce", config="data_config"),
        takes=_same("clean", "features"),
        artifact=("dataset", "built"),
        optional=frozenset({"features"}),
    ),
    "train": Call(
        call=_train,
        told=_same(
            "task",
            "checkpoints",
            "beside",
            "code_version",
            "nonce",
            "distributed_job",
            "hub",
            "ledger",
            config="train_config",
        ),
        takes=_same(dataset="built"),
        artifact=("model", "model"),
    ),
    "evaluate": Call(
        call=_evaluate,
        told=_same("task", "config", "source", "endpoints", "forgotten", "beside", "code_version", "nonce"),
        takes=_same("model", "data_version", dataset="built"),
        artifact=("candidate", "candidate"),
    ),
    "gate": Call(
        call=_gate,
        told=_same("task", "config", "endpoints"),
        takes=_same("candidate", dataset="built"),
        artifact=("decision", "decision"),
    ),
    "register": Call(
        call=_register,
        told=_same("task", "config", "endpoints", "promote"),
        takes=_same("candidate", "decision", "run"),
        artifact=("published", "published"),
    ),
    "batch_score": Call(
        call=_batch_score, takes=_same("model", "source", "endpoints", "settings", "to"), artifact=("scores", "scores")
    ),
}
