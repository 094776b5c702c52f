"""The workflows, each defined once: the local runner executes them and the compiler writes them for a cluster.

No ``from __future__ import annotations`` here: KFP reads the annotations of pipelines as objects.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from contracts.errors import PlatformError
from pipelines import components
from pipelines.lint import lint_components, lint_workflow
from pipelines.resources import ORDER, Placement, place


def workflow(name: str, placement: Placement | None = None) -> Any:
    """The KFP pipeline called `name`, placed on this machine or on a cluster.

    ``config`` is a task configuration as JSON; ``data_config`` is the same without what only the model needs, so that
    recipes share their data steps, and ``train_config`` without what only the gate needs.
    """
    if name not in ORDER:
        raise PlatformError(f"unknown workflow {name!r}", fix=f"pick one of: {', '.join(ORDER)}", code="bad_workflow")
    where = placement or Placement()
    makers: dict[str, Callable[[Placement], Any]] = {
        "ingestion": _ingestion,
        "training": _training,
        "full": _full,
        "batch_scoring": _batch_scoring,
    }
    return makers[name](where)


def compile_workflows(folder: Path, placement: Placement, names: Iterable[str] = tuple(ORDER)) -> list[Path]:
    """Write the workflows' IR to ``folder/<name>.yaml`` and check it."""
    lint_components(Path(components.__file__))
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in names:
        file = folder / f"{name}.yaml"
        compiler.Compiler().compile(workflow(name, placement), str(file))
        lint_workflow(file)
        written.append(file)
    return written


def _ingestion(where: Placement) -> Any:
    @dsl.pipeline(name="ingestion", description="A source to a validated dataset version with feature history")
    def ingestion(
        task: str, data_config: str, source: str, endpoints: str, code_version: str, store: str = "", nonce: str = ""
    ) -> None:
        dataset, version = _read(where, task, data_config, source, endpoints, code_version, nonce)
        _prepare(where, task, data_config, dataset, version, endpoints, code_version, store, nonce)

    return ingestion


def _training(where: Placement) -> Any:
    @dsl.pipeline(name="training", description="An existing dataset version to a registered model")
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
        clean, features = _prepare(
            where, task, data_config, dataset, data_version, endpoints, code_version, store, nonce
        )
        _learn(
            where, task, config, train_config, data_config, clean, features, data_version, source, endpoints,
            checkpoints, code_version, run, promote, nonce, spread,
        )  # fmt: skip

    return training


def _full(where: Placement) -> Any:
    @dsl.pipeline(name="full", description="A source to a registered model")
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
        dataset, version = _read(where, task, data_config, source, endpoints, code_version, nonce)
        clean, features = _prepare(where, task, data_config, dataset, version, endpoints, code_version, store, nonce)
        _learn(
            where, task, config, train_config, data_config, clean, features, version, source, endpoints,
            checkpoints, code_version, run, promote, nonce, spread,
        )  # fmt: skip

    return full


def _batch_scoring(where: Placement) -> Any:
    @dsl.pipeline(name="batch-scoring", description="Rows of a file to predictions of a published model")
    def batch_scoring(model: str, source: str, endpoints: str, settings: str = "") -> None:
        scored = components.batch_score(model=model, source=source, endpoints=endpoints, settings=settings)
        place(scored, "batch_score", where)

    return batch_scoring


def _read(
    where: Placement, task: Any, config: Any, source: Any, endpoints: Any, code: Any, nonce: Any
) -> tuple[Any, Any]:
    """ingest; returns the manifest's address and the version."""
    read = components.ingest(
        task=task, config=config, source=source, endpoints=endpoints, code_version=code, nonce=nonce
    )
    place(read, "ingest", where)
    return read.outputs["dataset"], read.outputs["version"]


def _prepare(
    where: Placement,
    task: Any,
    config: Any,
    dataset: Any,
    version: Any,
    endpoints: Any,
    code: Any,
    store: Any,
    nonce: Any,
) -> tuple[Any, Any]:
    """Clean rows and feature history, as artifacts."""
    checked = components.validate(task=task, config=config, dataset=dataset, code_version=code, nonce=nonce)
    clean = place(checked, "validate", where).outputs["clean"]
    history = components.materialise(
        task=task,
        config=config,
        clean=clean,
        data_version=version,
        endpoints=endpoints,
        code_version=code,
        store=store,
        nonce=nonce,
    )
    return clean, place(history, "materialise", where).outputs["features"]


def _learn(
    where: Placement,
    task: Any,
    config: Any,
    train_config: Any,
    data_config: Any,
    clean: Any,
    features: Any,
    version: Any,
    source: Any,
    endpoints: Any,
    checkpoints: Any,
    code: Any,
    run: Any,
    promote: Any,
    nonce: Any,
    spread: Any,
) -> None:
    built = components.build_dataset(
        task=task, config=data_config, clean=clean, features=features, code_version=code, nonce=nonce
    )
    dataset = place(built, "build_dataset", where).outputs["dataset"]
    fitted = components.train(
        task=task,
        config=train_config,
        dataset=dataset,
        checkpoints=checkpoints,
        code_version=code,
        nonce=nonce,
        spread=spread,
    )
    measured = components.evaluate(
        task=task,
        config=config,
        dataset=dataset,
        model=place(fitted, "train", where).outputs["model"],
        data_version=version,
        source=source,
        code_version=code,
        nonce=nonce,
    )
    candidate = place(measured, "evaluate", where).outputs["candidate"]
    decided = components.gate(task=task, config=config, dataset=dataset, candidate=candidate, endpoints=endpoints)
    published = components.register(
        task=task,
        config=config,
        candidate=candidate,
        decision=place(decided, "gate", where).outputs["decision"],
        endpoints=endpoints,
        run=run,
        promote=promote,
    )
    place(published, "register", where)
