"""Run a workflow on this machine with KFP's local runner; stdout has one JSON event per line, and nothing else."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from pipelines.event_stream import Translator, sender
from pipelines.io.events import from_os_error, unexpected
from pipelines.preflight import preflight
from pipelines.runstate import RunState, claimed
from pipelines.steps.calls import steps_of
from pipelines.tasks import get_task, load_config
from pipelines.tasks.code_version import code_version
from pipelines.values import known_version, learned

_DATA = ("task", "data_config", "endpoints", "code_version", "store", "nonce", "checkpoints")


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One run. `config` is a task's configuration; `source` "" is the built-in data.

    nonce: steps of another one do not come from the cache; so a run that has its own runs every step once.
    dataset: a version to train on (workflow ``training``).
    settings: of a run on a cluster; here they are only kept.
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
    settings: Mapping[str, Any] = field(default_factory=dict)


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
    order = steps_of(get_task(spec.task) if spec.task else None, spec.workflow)
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
    pipeline = workflow(workflow_name, task=get_task(arguments["task"]))
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

    from pipelines.io import events

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


def asked(spec: RunSpec, where: Endpoints) -> dict[str, Any]:
    """The parameters of the workflow ``full`` whose tasks have several steps; the pod makes the rest of them."""
    return {
        "task": spec.task,
        "config": spec.config,
        "source": spec.source,
        "endpoints": where.model_dump_json(),
        "code_version": code_version(spec.task),
        "run": spec.run_id,
        "promote": spec.promote,
        "nonce": spec.nonce,
    }


def arguments(spec: RunSpec, where: Endpoints) -> dict[str, Any]:
    """The parameters of a workflow whose tasks have one step; `where` are the addresses as its steps see them."""
    if spec.workflow == "batch_scoring":
        given = {"model": spec.model, "source": spec.source, "endpoints": where.model_dump_json()}
        return {**given, "settings": spec.config}
    task = get_task(spec.task)
    values = learned(task, load_config(task, spec.config), where)
    values |= {"source": spec.source, "nonce": spec.nonce, "run": spec.run_id, "promote": spec.promote}
    if spec.workflow == "ingestion":
        return {name: values[name] for name in (*_DATA, "source")}
    if spec.workflow == "training":
        values |= known_version(task, where, spec.dataset, spec.source)
    return values


def _asked(spec: RunSpec, where: Endpoints) -> dict[str, Any]:
    config = json.loads(spec.config) if spec.config else {}
    return {
        "run_id": spec.run_id,
        "workflow": spec.workflow,
        "task": spec.task,
        "recipe": config.get("recipe", ""),
        "config": config,
        "source": spec.source,
        "settings": dict(spec.settings),
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
