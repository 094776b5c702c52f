"""Run a workflow on this machine with KFP's local runner; stdout has one JSON event per line, and nothing else."""

from __future__ import annotations

import contextlib
import logging
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError
from pipelines.cost import priced
from pipelines.data_engines import announced
from pipelines.event_stream import Translator, sender
from pipelines.io.events import from_os_error, unexpected
from pipelines.parameters import parameters_of
from pipelines.planned import refuse_what_cannot_fit
from pipelines.preflight import preflight
from pipelines.resources import Placement
from pipelines.run import Run
from pipelines.run_settings import tasks_of
from pipelines.runstate import RunState, claimed
from pipelines.steps.calls import CALLS, run_step, steps_of
from pipelines.tasks import get_task


def run(asked: Run) -> int:
    """Run to the end. Returns 0 when it succeeded or the gate refused the model, 1 when it failed, 130 when stopped."""
    asked = asked.having(endpoints=asked.where.resolved())
    send = sender(sys.stdout, asked.run_id)
    folder = asked.where.path("runs") / asked.run_id
    try:
        engine = announced(asked.settings, str(asked.where.scratch("parts")))
        with _prepared(), claimed(folder, asked.run_id), engine, priced(asked.prices):
            return _run(asked, folder, send)
    except PlatformError as err:
        send("run_failed", error=err.as_dict())
    except OSError as err:
        send("run_failed", error=from_os_error(err, "the run").as_dict())
    return 1


def _run(asked: Run, folder: Path, send: Any) -> int:
    order = steps_of(get_task(asked.task) if asked.task else None, asked.workflow)
    state = RunState(folder, asked, order)
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        translator = Translator(order, state, log, send)
        try:
            given = parameters_of(asked, each=tasks_of(asked.settings) == "each")
            preflight(asked.workflow, asked.task, asked.where)
            refuse_what_cannot_fit(asked)
            send("run_started", workflow=asked.workflow, task=asked.task, steps=list(order))
            if len(order) == 1:
                _execute_alone(order[0], given, folder, translator)
                _hand_over(folder / "steps" / order[0] / "out", asked.out)
            else:
                _execute(asked, given, folder, translator)
        except KeyboardInterrupt:
            error = PlatformError("the run was stopped", fix="start it again: it goes on where it was", code="stopped")
            return _failed(state, send, error, 130)
        except PlatformError as err:
            return _failed(state, send, err)
        except Exception as err:  # noqa: BLE001  KFP raises RuntimeError for a failed step, and anything for its defects
            return _failed(state, send, translator.error or _explained(err, translator))
    result: Any = translator.results.get(order[-1])
    refused = asked.workflow in ("full", "training") and not result["gate_passed"]
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


def _execute(asked: Run, arguments: dict[str, Any], folder: Path, out: Translator) -> None:
    from kfp import local

    from pipelines.lint import lint_arguments
    from pipelines.workflows import workflow

    steps = folder / "steps"
    lint_arguments(arguments, steps)
    pipeline = workflow(asked.workflow, Placement(tasks=tasks_of(asked.settings)), get_task(asked.task))
    # KFP deletes its workspace after every run, whatever is in it: it gets a folder that nobody else has.
    workspace = tempfile.mkdtemp(prefix="fairlead-unused-")
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(steps),
        workspace_root=workspace,
        enable_caching=True,
        cache_root=str(asked.where.path("cache") / "steps"),
    )
    try:
        with contextlib.redirect_stdout(out):
            pipeline(**arguments)
        out.skipped_before(None)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _execute_alone(step: str, arguments: dict[str, Any], folder: Path, out: Translator) -> None:
    """A workflow of one step needs no KFP on this machine, and no process of its own (docs/adr)."""
    target = folder / "steps" / step
    target.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.redirect_stdout(out):
            run_step(step, {**arguments, CALLS[step].artifact[0]: str(target / "out")})
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
