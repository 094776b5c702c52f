"""The workflows, each defined once: the local runner executes them and the compiler writes them for a cluster.

No ``from __future__ import annotations`` here: KFP reads the annotations of pipelines as objects. The names of the
parameters and what their docstrings say are what a person sees on Kubeflow's page.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from pipelines import components, grouped
from pipelines.grouping import needs_of, plan
from pipelines.lint import lint_components, lint_workflow
from pipelines.parameters import NOT_ASKED
from pipelines.resources import Placement, place
from pipelines.steps.calls import ORDER, Call, graph, named_inputs
from pipelines.task import Task

Steps = Mapping[str, Call]


def workflow(name: str, placement: Placement | None = None, task: Task | None = None) -> Any:
    """The KFP pipeline called `name`, placed on this machine or on a cluster, with the steps that `task` needs.

    Without `task` it is for any: it names every step, and its tasks of several steps leave out what theirs does not
    need.

    Of a pipeline whose tasks have one step, each step has a parameter for its context. Tasks of several steps make the
    contexts of what was asked, and need to be given the task only.
    """
    steps = graph(name, task)
    where = placement or Placement()
    if where.tasks != "each" and name in NOT_ASKED:
        parameters = {each: default for each, default in _asked().items() if each not in NOT_ASKED[name]}
        return _pipeline(name, parameters, functools.partial(_tasks, where, steps))
    return _pipeline(name, _told(steps), functools.partial(_each, where, steps))


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
    said = [f"    {parameter}: {_PARAMETERS.get(parameter, _CONTEXT)}" for parameter in parameters]
    function.__doc__ = "\n".join([_ABOUT[name], "", "Args:", *said])
    return dsl.pipeline(name=name.replace("_", "-"), description=_ABOUT[name])(function)


def _declared(name: str, default: Any) -> inspect.Parameter:
    kind = bool if isinstance(default, bool) else str
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _told(steps: Steps) -> dict[str, Any]:
    """The parameters of a pipeline with a task for every step."""
    contexts = [f"{step}_context" for step, call in steps.items() if call.told]
    asked = ["task", "asked"] if contexts else []
    required = [*asked, *contexts, *named_inputs(steps)]
    return {name: "" if name in _MAY_BE_EMPTY else inspect.Parameter.empty for name in required}


def _asked() -> dict[str, Any]:
    """The parameters of a pipeline whose first task has several steps: the inputs of its component."""
    inputs = grouped.prepare.component_spec.inputs
    return {
        name: inspect.Parameter.empty if spec.default is None else spec.default
        for name, spec in inputs.items()
        if name != "steps"
    }


def _each(where: Placement, steps: Steps, given: Mapping[str, Any]) -> None:
    """A task for every step; what a step makes is an artifact of KFP. `given` has the pipeline's parameters."""
    values = dict(given)
    for step, call in steps.items():
        taken = {parameter: values[value] for parameter, value in call.given(values.__contains__).items()}
        taken |= {"context": values[f"{step}_context"]} if call.told else {}
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
            for number in range(where.search_pods):
                pod = grouped.search(worker=number, **known)
                place(pod, "train", where, replace(needs_of(group.like, where), cached=False))
                task.after(pod)
            known = {"values": later, "trained": task.output}


_ABOUT = {
    "ingestion": "A source to a validated dataset version with feature history",
    "training": "An existing dataset version to a registered model",
    "full": "A source to a registered model",
    "batch_scoring": "Rows of a file to predictions of a published model",
}
_CONTEXT = "what the step is told, as JSON"
_PARAMETERS = {
    "task": "what is predicted, such as news",
    "source": "rows: s3://... (a file or folder), mongodb://host/database/collection; empty: the task's built-in data",
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
    "asked": "what the run was asked, as JSON, for who looks at it; no step reads it",
    "to": "a collection for the scores: mongodb://host/database/collection?key=COLUMN; empty: none",
    "data_version": "name of the dataset version",
}
_MAY_BE_EMPTY = {"asked", "run", "endpoints", "settings", "to"}
