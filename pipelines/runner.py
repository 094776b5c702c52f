"""Run a workflow on this machine with KFP's local runner; stdout has one JSON event per line, and nothing else."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from contracts import objects
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from pipelines.preflight import preflight
from pipelines.runstate import RunState, claimed
from pipelines.steps.events import from_os_error, unexpected
from pipelines.steps.version import code_version
from pipelines.steps.versions import MANIFEST
from pipelines.tasks import dump_config, get_task, load_config
from pipelines.tasks.base import Task, TaskConfig
from pipelines.translate import Translator, sender


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One run. `config` is a task's configuration; `source` "" is the built-in data.

    nonce: steps of another one do not come from the cache; so a run that has its own runs every step once.
    dataset: a version to train on (workflow ``training``).
    model, out: what scores, and the new folder that gets a copy of the scores (workflow ``batch_scoring``).
    """

    run_id: str
    task: str = ""
    config: str = ""
    source: str = ""
    endpoints: Endpoints
    workflow: str = "full"
    nonce: str = ""
    promote: bool = True
    dataset: str = ""
    model: str = ""
    out: str = ""


def run(spec: RunSpec) -> int:
    """Run to the end. Returns 0 when it succeeded or the gate refused the model, 1 when it failed, 130 when stopped."""
    send = sender(sys.stdout, spec.run_id)
    where = spec.endpoints.resolved()
    folder = where.path("runs") / spec.run_id
    try:
        with _prepared(), claimed(folder, spec.run_id):
            return _run(spec, where, folder, send)
    except PlatformError as err:
        send("run_failed", error=err.as_dict())
    except OSError as err:
        send("run_failed", error=from_os_error(err, "the run").as_dict())
    return 1


def _run(spec: RunSpec, where: Endpoints, folder: Path, send: Any) -> int:
    from pipelines.resources import ORDER

    if spec.workflow not in ORDER:
        raise PlatformError(
            f"unknown workflow {spec.workflow!r}", fix=f"pick one of: {', '.join(ORDER)}", code="bad_workflow"
        )
    order = ORDER[spec.workflow]
    state = RunState(folder, _asked(spec, where), order)
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        translator = Translator(order, state, log, send)
        try:
            given = arguments(spec, where)
            preflight(spec.workflow, spec.task, where)
            send("run_started", workflow=spec.workflow, task=spec.task, steps=list(order))
            if len(order) == 1:
                _execute_alone(order[0], given, folder, translator)
                _hand_over(folder / "steps" / order[0] / "out", spec.out)
            else:
                _execute(spec.workflow, given, where, folder, translator)
        except KeyboardInterrupt:
            error = PlatformError("the run was stopped", fix="start it again: it goes on where it was", code="stopped")
            return _failed(state, send, error, 130)
        except PlatformError as err:
            return _failed(state, send, err)
        except Exception as err:  # noqa: BLE001  KFP raises RuntimeError for a failed step, and anything for its defects
            return _failed(state, send, translator.error or _explained(err, translator))
    result = translator.results.get(order[-1])
    refused = spec.workflow in ("full", "training") and not result["gate_passed"]
    state.end("refused" if refused else "succeeded", result=result)
    send("run_finished", status=state.document["status"], seconds=state.document["seconds"], result=result)
    return 0


def _explained(err: Exception, translator: Translator) -> PlatformError:
    failed_step = isinstance(err, RuntimeError) and "Inner task failed" in str(err)
    return translator.died() if failed_step else unexpected(err, "the local runner")


def _failed(state: RunState, send: Any, error: PlatformError, code: int = 1) -> int:
    for name, step in state.document["steps"].items():
        if step["status"] == "running":
            state.step(name, "failed")
    state.end("failed", error=error.as_dict())
    send("run_failed", error=error.as_dict(), seconds=state.document["seconds"])
    return code


def _execute(workflow_name: str, arguments: dict[str, Any], where: Endpoints, folder: Path, out: Translator) -> None:
    from kfp import local

    from pipelines.lint import lint_arguments
    from pipelines.workflows import workflow

    steps = folder / "steps"
    lint_arguments(arguments, steps)
    pipeline = workflow(workflow_name)
    # KFP deletes its workspace after every run, whatever is in it: it gets a folder that nobody else has.
    workspace = tempfile.mkdtemp(prefix="fairlead-unused-")
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(steps),
        workspace_root=workspace,
        enable_caching=True,
        cache_root=str(where.path("cache") / "steps"),
    )
    try:
        with contextlib.redirect_stdout(out):
            pipeline(**arguments)
        out.skipped_before(None)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _execute_alone(step: str, arguments: dict[str, Any], folder: Path, out: Translator) -> None:
    """A workflow of one step needs no KFP on this machine, and no process of its own (docs/adr)."""
    import importlib

    from pipelines.steps import events

    call = getattr(importlib.import_module(f"pipelines.steps.{step}"), step)
    target = folder / "steps" / step
    target.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.redirect_stdout(out), events.running(step) as done:
            done(call(**arguments, out=str(target / "out")))
    except SystemExit as err:  # the step has said why
        raise out.error or out.died() from err


def _hand_over(made: Path, out: str) -> None:
    """A copy of a step's folder for the user, complete or not there."""
    if not out:
        return
    target = Path(out)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fairlead-") as staging:
            shutil.copytree(made, Path(staging) / "made").rename(target)
    except OSError as err:
        raise from_os_error(err, f"the copy to {target}") from err


def arguments(spec: RunSpec, where: Endpoints) -> dict[str, Any]:
    """The workflow's parameters, all text and bool; `where` are the addresses as its steps see them."""
    if spec.workflow == "batch_scoring":
        given = {"model": spec.model, "source": spec.source, "endpoints": where.model_dump_json()}
        return {**given, "settings": spec.config}
    task = get_task(spec.task)
    config = load_config(task, spec.config)
    common = {
        "task": task.name,
        "data_config": dump_config(data_part(task, config)),
        "endpoints": where.model_dump_json(),
        "code_version": code_version(task.name),
        "store": store_stamp(task, where),
        "nonce": spec.nonce,
    }
    if spec.workflow == "ingestion":
        return {**common, "source": spec.source}
    learning = {
        **common,
        "config": dump_config(config),
        "train_config": dump_config(config.training_part()),
        "source": spec.source,
        "checkpoints": str(where.path("cache") / "checkpoints"),
        "run": spec.run_id,
        "promote": spec.promote,
    }
    if spec.workflow == "full":
        return learning
    root = objects.join(where.uri("data"), task.name)
    manifest = objects.join(root, spec.dataset, MANIFEST)
    if not spec.dataset or not objects.exists(manifest):
        known = [name for name in objects.list_names(root) if not name.startswith(".")]
        raise PlatformError(
            f"task {task.name} has no dataset version {spec.dataset!r}",
            detail=f"versions: {', '.join(known) or 'none'}",
            fix="run the workflow ingestion first, or name one of these with --dataset",
            code="unknown_dataset",
        )
    source = spec.source or str(json.loads(objects.read_bytes(manifest))["source"])
    return {**learning, "source": source, "dataset": manifest, "data_version": spec.dataset}


def data_part(task: Task, config: TaskConfig) -> TaskConfig:
    """The configuration with `model`, `gate` and, where possible, the recipe of the default recipe.

    Recipes that differ in these only have the same data, and so share the cache of every step before training.
    """
    base = task.recipes[task.default_recipe]
    if type(base) is not type(config):
        base = task.recipes.get(config.recipe, config)
    assert is_dataclass(config)
    learned = {f.name: getattr(base, f.name) for f in fields(config) if f.name in ("model", "gate", "recipe")}
    return replace(config, **learned)


def store_stamp(task: Task, where: Endpoints) -> str:
    """Changes when feature history or online store are deleted, so that a cached materialise step runs again."""
    if not task.feature_service:
        return ""
    stamp, online = objects.join(where.uri("features"), ".stamp"), where.uri("online")
    if not objects.exists(stamp) or ("://" not in online and not objects.exists(online)):
        objects.write_bytes(stamp, secrets.token_hex(8).encode())
    return objects.read_bytes(stamp).decode()


def _asked(spec: RunSpec, where: Endpoints) -> dict[str, Any]:
    config = json.loads(spec.config) if spec.config else {}
    return {
        "run_id": spec.run_id,
        "workflow": spec.workflow,
        "task": spec.task,
        "recipe": config.get("recipe", ""),
        "config": config,
        "source": spec.source,
        "endpoints": where.model_dump(),
        "nonce": spec.nonce,
        "promote": spec.promote,
        "dataset": spec.dataset,
        "model": spec.model,
        "out": spec.out,
    }


@contextlib.contextmanager
def _prepared() -> Iterator[None]:
    """SIGTERM ends a run like Ctrl-C; warnings of KFP about what is ignored locally are no news."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    logging.getLogger().setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
