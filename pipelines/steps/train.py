"""Train the task's model; a killed training goes on from its last checkpoint."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contracts import storage
from contracts.errors import PlatformError
from contracts.problems import read_output
from pipelines.io import events
from pipelines.io.files import read_json, write_json
from pipelines.io.remote import folder_kept
from pipelines.io.weights import HUB, hub_allowed
from pipelines.task import Task, TaskConfig, problem_of
from pipelines.tasks import get_task, load_config
from pipelines.training.privacy import Account, account_of, paid_by

_KEYS = {"engine", "output", "decision", "history", "parameters", "device"}
_PATIENCE = 20.0  # seconds to wait for a killed run's process to let go of its checkpoints


def train(
    task: str,
    config: str,
    dataset: str,
    checkpoints: str,
    out: str,
    distributed_job: str = "",
    hub: str = "",
    ledger: str = "",
) -> dict[str, Any]:
    """Train on `dataset`; `out` gets ``model/`` and ``train.json``.

    `checkpoints` must be the same folder, or ``s3://`` address, when the same training is started again; it is emptied
    after success. In S3 it outlives the machine.
    `distributed_job`, JSON of `pods.DistributedJob`: other pods train then, and this one waits for them.
    `hub`: see `Endpoints`.  With ``search.trials`` the best of a search is trained, see `pipelines.search`.
    `ledger`: of a private training, JSON of the endpoints whose registry keeps what it costs.

    Returns:
        engine, device and the last point of the learning curve.
    """
    found = get_task(task)
    settings = load_config(found, config)
    _check_inputs(dataset, [item.model_dump() for item in found.inputs(settings)])
    target = Path(out)
    if distributed_job and settings.search.trials:
        raise PlatformError(
            "a search trains in processes of one pod, and this run is to train over several",
            fix="leave out --train-nodes, or search first and train the best over several pods",
            code="bad_config",
        )
    if distributed_job and settings.mitigates:
        raise PlatformError(
            "a mitigation trains a model for each strength in one pod, and this run is to train over several",
            fix="leave out resources.train.nodes, or train without mitigation.method",
            code="bad_config",
        )
    account = _account(found, settings, dataset, ledger, bool(distributed_job)) if settings.is_private else None
    if distributed_job:
        from pipelines.training.distributed_job import train_by_job
        from pipelines.training.pods import DistributedJob

        report = events.progress("train")
        job = DistributedJob.model_validate_json(distributed_job)
        job = job.model_copy(update={"environment": {**job.environment, HUB: hub}}) if hub else job
        train_by_job(job, task, config, Path(dataset), target, report)
        return _summary(read_json(target / "train.json"))
    model = target / "model"
    shutil.rmtree(model, ignore_errors=True)
    model.mkdir(parents=True)
    try:
        with (
            hub_allowed(hub),
            paid_by(account),
            folder_kept(checkpoints) as kept,
            exclusive(Path(kept), target) as folder,
        ):
            report = events.progress("train")
            if settings.search.trials:
                from pipelines.search.run_search import search_and_train

                trained = search_and_train(found, settings, Path(dataset), target, folder, report)
            else:
                trained = settings.train(found, Path(dataset), model, folder, report)
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(target / ".checkpoints", ignore_errors=True)
    except OSError as err:
        raise events.from_os_error(err, "train") from err
    if absent := sorted(_KEYS - set(trained)):
        raise PlatformError(
            f"recipe {settings.recipe} of task {task}: train() returned no {absent[0]!r}",
            detail=f"expected keys: {', '.join(sorted(_KEYS))}",
            fix="see TaskConfig.train in pipelines/task.py",
            code="bad_task",
        )
    _check_output(trained["output"], found, settings.recipe)
    write_json(target / "train.json", trained)
    return _summary(trained)


def _account(task: Task, config: TaskConfig, dataset: str, ledger: str, spread: bool) -> Account:
    """Who pays for a private training, which several pods cannot share: each would add noise of its own."""
    if trials := config.search.trials:
        raise PlatformError(
            "a private model is not searched for: every trial would have to be paid for",
            detail=f"search.trials is {trials}",
            fix="--set search.trials=0",
            code="not_private",
        )
    if spread:
        raise PlatformError(
            "a private model is trained by one process",
            detail="the run asks for several",
            fix="leave out resources.train.nodes, or train without privacy.epsilon",
            code="not_private",
        )
    if task.feature_service:
        raise PlatformError(
            f"task {task.name} has features that are made of other rows, which no privacy of single rows covers",
            detail="a row is in the histories of its entities, and so in what is learned of others",
            fix="train without privacy.epsilon, or take a task without feature_service",
            code="not_private",
        )
    return account_of(ledger, read_json(Path(dataset) / "dataset.json"), task.name, config.recipe, config.gate.privacy)


def _check_output(output: Any, task: Task, recipe: str) -> None:
    """What is learned must be what the task says that it is."""
    try:
        known = read_output(output)
    except ValueError as err:
        detail = str(err)
    else:
        if known.problem == problem_of(task):
            return
        detail = f"the recipe gives a {known.problem}, the task is a {problem_of(task)}"
    raise PlatformError(
        f"recipe {recipe} of task {task.name}: train() returned an output that does not fit",
        detail=detail,
        fix='return "output" as in contracts/problems, such as {"problem": "classification", "classes": [...]}',
        code="bad_task",
    )


def _summary(trained: dict[str, Any]) -> dict[str, Any]:
    last = trained["history"][-1] if trained["history"] else {}
    return {"engine": trained["engine"], "device": trained["device"], "rounds": len(trained["history"]), **last}


def _check_inputs(dataset: str, inputs: list[dict[str, Any]]) -> None:
    """The data set is shared by recipes: what is built must not depend on the model's settings."""
    built = read_json(Path(dataset) / "dataset.json")["inputs"]
    if built != inputs:
        known = {item["name"] for item in built}
        differing = [item["name"] for item in inputs if item["name"] not in known] or ["(order or kind)"]
        raise PlatformError(
            "the data set was built for other inputs than this recipe's",
            detail=f"differing: {', '.join(differing)}",
            fix="inputs() may depend on every section of the configuration but `model` and `gate`",
            code="bad_task",
        )


@contextmanager
def exclusive(folder: Path, fallback: Path) -> Iterator[Path]:
    """The checkpoint folder for one process at a time; a run beside it trains from the start in a folder of its own."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("a") as lock:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    folder = fallback / ".checkpoints" / folder.name
                    break
                time.sleep(0.2)
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


def checkpoint_folder(root: str, *decides: str) -> str:
    """A folder for the checkpoints of exactly this training: what decides its result decides the name."""
    return storage.join(root, hashlib.sha256("\0".join(decides).encode()).hexdigest()[:24])
