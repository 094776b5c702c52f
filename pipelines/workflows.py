"""The workflows, each defined once: the local runner executes them and the compiler writes them for a cluster.

No ``from __future__ import annotations`` here: KFP reads the annotations of pipelines as objects. The names of the
parameters and what their docstrings say are what a person sees on Kubeflow's page.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from pipelines import components, grouped
from pipelines.grouping import needs_of, plan
from pipelines.lint import lint_components, lint_workflow
from pipelines.resources import Placement, place
from pipelines.steps.calls import ORDER, Call, graph
from pipelines.task import Task

Steps = Mapping[str, Call]


def workflow(name: str, placement: Placement | None = None, task: Task | None = None) -> Any:
    """The KFP pipeline called `name`, placed on this machine or on a cluster, with the steps that `task` needs.

    Without `task` it is for any: it names every step, and its tasks of several steps leave out what theirs does not
    need.

    Tasks of one step are given the configuration in three forms of JSON: ``config`` is a task's, ``data_config`` is the
    same without what only the model needs, so that recipes share their data steps, and ``train_config`` without what
    only the gate needs. Tasks of several steps make them of what was asked, and need to be given the task only.
    """
    steps = graph(name, task)
    where = placement or Placement()
    if where.cluster and where.tasks != "each" and name in _GROUPED:
        return _pipeline(name, _GROUPED[name], functools.partial(_tasks, where, steps))
    return _pipeline(name, _EACH[name], functools.partial(_each, where, steps))


def compile_workflows(
    folder: Path, placement: Placement, names: Iterable[str] = tuple(ORDER), task: Task | None = None
) -> list[Path]:
    """Write the workflows' IR, for `task` or for any, to ``folder/<name>.yaml`` and check it."""
    for module in (components, grouped):
        lint_components(Path(str(module.__file__)))
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in names:
        file = folder / f"{name}.yaml"
        compiler.Compiler().compile(workflow(name, placement, task), str(file))
        lint_workflow(file)
        written.append(file)
    return written


def _pipeline(name: str, parameters: Mapping[str, Any], body: Callable[[dict[str, Any]], None]) -> Any:
    """The KFP pipeline with these parameters and their defaults, and what Kubeflow's page says of them."""

    def function(*given: Any) -> None:
        body(dict(zip(parameters, given, strict=True)))

    function.__signature__ = inspect.Signature([_declared(*each) for each in parameters.items()])  # type: ignore[attr-defined]
    said = [f"    {parameter}: {_PARAMETERS[parameter]}" for parameter in parameters]
    function.__doc__ = "\n".join([_ABOUT[name], "", "Args:", *said])
    return dsl.pipeline(name=name.replace("_", "-"), description=_ABOUT[name])(function)


def _declared(name: str, default: Any) -> inspect.Parameter:
    kind = bool if isinstance(default, bool) else str
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _each(where: Placement, steps: Steps, given: Mapping[str, Any]) -> None:
    """A task for every step; what a step makes is an artifact of KFP. `given` has the pipeline's parameters."""
    values = dict(given)
    for step, call in steps.items():
        taken = {parameter: values[value] for parameter, value in call.given(values.__contains__)}
        task = components.added(step=step, **taken) if call.like else getattr(components, step)(**taken)
        place(task, call.like or step, where)
        output, artifact = call.artifact
        values[artifact] = task.outputs[output]
        values |= {value: task.outputs[made] for value, made in call.made.items()}


def _tasks(where: Placement, steps: Steps, given: Mapping[str, Any]) -> None:
    """A task for every group of steps, with texts between them. `given` has the pipeline's parameters."""
    known = dict(given)
    groups, later = plan(steps, where), None
    for group in groups:
        task = getattr(grouped, group.component)(steps=",".join(group.steps), **known)
        place(task, group.steps[0], where, needs_of(group.like, where))
        if group.component == "prepare" and group is not groups[-1]:
            later = task.outputs["values"]
            known = {"values": task.outputs["training"] if groups[1].component == "train" else later}
        elif group.component == "train":
            known = {"values": later, "trained": task.output}


_ABOUT = {
    "ingestion": "A source to a validated dataset version with feature history",
    "training": "An existing dataset version to a registered model",
    "full": "A source to a registered model",
    "batch_scoring": "Rows of a file to predictions of a published model",
}
_PARAMETERS = {
    "task": "what is predicted, such as news",
    "source": "rows, as a file or folder: s3://...; empty: the task's built-in data",
    "recipe": "a named configuration of the task; empty: its default",
    "settings": "what is other than in the recipe: key=value, with commas or line breaks between; of a batch, JSON",
    "promote": "make the model champion when it passes the gate",
    "dataset": "the dataset version to train on; empty: the only one",
    "config": "a configuration, or sections of it, as JSON; empty: the recipe's",
    "endpoints": "addresses of data and models as JSON; empty: the platform's",
    "code_version": "refuse to run other code than this; empty: any",
    "run": "name of the run; empty: made of task and time",
    "nonce": "take only what was made with the same word from the cache",
    "spread": "how several pods train, as JSON; empty: one does",
    "model": "name, name@alias or name:version of the registry, or a bundle",
    "data_config": "config without what only the model needs",
    "train_config": "config without what only the gate needs",
    "data_version": "name of the dataset version",
    "checkpoints": "where a training keeps what it needs to go on",
    "store": "changes when feature stores were deleted",
}
_GIVEN: Any = inspect.Parameter.empty  # it has no default: who starts a run must say it
_KEYS = {"store": "", "nonce": "", "checkpoints": ""}
_DATA = dict.fromkeys(("task", "data_config", "source", "endpoints", "code_version"), _GIVEN) | _KEYS
_MODEL = dict.fromkeys(("config", "train_config", "run"), _GIVEN) | {"promote": True, "spread": ""}
_EACH: dict[str, dict[str, Any]] = {
    "ingestion": _DATA,
    "training": dict.fromkeys(("dataset", "data_version"), _GIVEN) | _DATA | _MODEL,
    "full": _DATA | _MODEL,
    "batch_scoring": {"model": _GIVEN, "source": _GIVEN, "endpoints": "", "settings": ""},
}
_FIRST = {"task": _GIVEN}
_CHOICE = dict.fromkeys(("recipe", "settings"), "")
_SAME = dict.fromkeys(("config", "endpoints", "code_version", "nonce"), "")
_LEARN = {"promote": True, "run": "", "spread": ""}
_GROUPED: dict[str, dict[str, Any]] = {
    "ingestion": _FIRST | {"source": ""} | _CHOICE | _SAME,
    "training": _FIRST | {"dataset": ""} | _CHOICE | _LEARN | _SAME,
    "full": _FIRST | {"source": ""} | _CHOICE | _LEARN | _SAME,
}
"""Parameters of workflows whose tasks have one step and several; a page shows them by name, so their order is free."""
