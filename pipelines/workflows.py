"""The workflows, each defined once: the local runner executes them and the compiler writes them for a cluster.

No ``from __future__ import annotations`` here: KFP reads the annotations of pipelines as objects. The names of the
parameters and what their docstrings say are what a person sees on Kubeflow's page.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from contracts.errors import PlatformError
from pipelines import components, grouped
from pipelines.grouping import needs_of, plan
from pipelines.lint import lint_components, lint_workflow
from pipelines.resources import ORDER, Placement, place
from pipelines.steps.calls import CALLS


def workflow(name: str, placement: Placement | None = None) -> Any:
    """The KFP pipeline called `name`, placed on this machine or on a cluster.

    Tasks of one step are given the configuration in three forms of JSON: ``config`` is a task's, ``data_config`` is the
    same without what only the model needs, so that recipes share their data steps, and ``train_config`` without what
    only the gate needs. Tasks of several steps make them of what was asked, and need to be given the task only.
    """
    if name not in ORDER:
        raise PlatformError(f"unknown workflow {name!r}", fix=f"pick one of: {', '.join(ORDER)}", code="bad_workflow")
    where = placement or Placement()
    makers = _GROUPED if where.cluster and where.tasks != "each" else _EACH
    return makers[name](where)


def compile_workflows(folder: Path, placement: Placement, names: Iterable[str] = tuple(ORDER)) -> list[Path]:
    """Write the workflows' IR to ``folder/<name>.yaml`` and check it."""
    for module in (components, grouped):
        lint_components(Path(str(module.__file__)))
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in names:
        file = folder / f"{name}.yaml"
        compiler.Compiler().compile(workflow(name, placement), str(file))
        lint_workflow(file)
        written.append(file)
    return written


def _ingestion_each(where: Placement) -> Any:
    def ingestion(
        task: str, data_config: str, source: str, endpoints: str, code_version: str, store: str = "", nonce: str = ""
    ) -> None:
        _each("ingestion", where, locals())

    return _pipeline("ingestion", ingestion)


def _training_each(where: Placement) -> Any:
    def training(
        task: str,
        config: str,
        train_config: str,
        data_config: str,
        dataset: str,
        data_version: str,
        source: str,
        endpoints: str,
        checkpoints: str,
        code_version: str,
        run: str,
        promote: bool = True,
        store: str = "",
        nonce: str = "",
        spread: str = "",
    ) -> None:
        _each("training", where, locals())

    return _pipeline("training", training)


def _full_each(where: Placement) -> Any:
    def full(
        task: str,
        config: str,
        train_config: str,
        data_config: str,
        source: str,
        endpoints: str,
        checkpoints: str,
        code_version: str,
        run: str,
        promote: bool = True,
        store: str = "",
        nonce: str = "",
        spread: str = "",
    ) -> None:
        _each("full", where, locals())

    return _pipeline("full", full)


def _batch_scoring(where: Placement) -> Any:
    def batch_scoring(model: str, source: str, endpoints: str = "", settings: str = "") -> None:
        _each("batch_scoring", where, locals())

    return _pipeline("batch_scoring", batch_scoring)


def _ingestion(where: Placement) -> Any:
    def ingestion(
        task: str,
        source: str = "",
        recipe: str = "",
        settings: str = "",
        config: str = "",
        endpoints: str = "",
        code_version: str = "",
        nonce: str = "",
    ) -> None:
        _tasks("ingestion", where, locals())

    return _pipeline("ingestion", ingestion)


def _training(where: Placement) -> Any:
    def training(
        task: str,
        dataset: str = "",
        recipe: str = "",
        settings: str = "",
        promote: bool = True,
        config: str = "",
        endpoints: str = "",
        code_version: str = "",
        run: str = "",
        nonce: str = "",
        spread: str = "",
    ) -> None:
        _tasks("training", where, locals())

    return _pipeline("training", training)


def _full(where: Placement) -> Any:
    def full(
        task: str,
        source: str = "",
        recipe: str = "",
        settings: str = "",
        promote: bool = True,
        config: str = "",
        endpoints: str = "",
        code_version: str = "",
        run: str = "",
        nonce: str = "",
        spread: str = "",
    ) -> None:
        _tasks("full", where, locals())

    return _pipeline("full", full)


def _pipeline(name: str, function: Callable[..., None]) -> Any:
    """The KFP pipeline of `function`, with what Kubeflow's page says of its parameters."""
    said = [f"    {parameter}: {_PARAMETERS[parameter]}" for parameter in inspect.signature(function).parameters]
    function.__doc__ = "\n".join([_ABOUT[name], "", "Args:", *said])
    return dsl.pipeline(name=name.replace("_", "-"), description=_ABOUT[name])(function)


def _each(name: str, where: Placement, given: Mapping[str, Any]) -> None:
    """A task for every step; what a step makes is an artifact of KFP. `given` has the pipeline's parameters."""
    values = dict(given)
    for step in ORDER[name]:
        call = CALLS[step]
        taken = {parameter: values[value] for parameter, value in call.takes.items()}
        task = place(getattr(components, step)(**taken), step, where)
        output, artifact = call.artifact
        values[artifact] = task.outputs[output]
        values |= {value: task.outputs[made] for value, made in call.made.items()}


def _tasks(name: str, where: Placement, given: Mapping[str, Any]) -> None:
    """A task for every group of steps, with texts between them. `given` has the pipeline's parameters."""
    known: dict[str, Any] = {key: value for key, value in given.items() if key != "where"}
    groups, later = plan(name, where), None
    for group in groups:
        task = getattr(grouped, group.component)(steps=",".join(group.steps), **known)
        place(task, group.steps[0], where, needs_of(group.steps, where))
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
_EACH: dict[str, Callable[[Placement], Any]] = {
    "ingestion": _ingestion_each,
    "training": _training_each,
    "full": _full_each,
    "batch_scoring": _batch_scoring,
}
_GROUPED: dict[str, Callable[[Placement], Any]] = {
    "ingestion": _ingestion,
    "training": _training,
    "full": _full,
    "batch_scoring": _batch_scoring,
}
