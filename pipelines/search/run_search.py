"""A search in place of a training: the trials, then the recipe's own configuration and the best one on all rows."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from pipelines.io.files import clean_numbers, write_json, write_text
from pipelines.search import study as studies
from pipelines.search.found import document
from pipelines.search.space import checked_space, key_value
from pipelines.search.trial import changed, higher_is_better, inner_dataset
from pipelines.search.worker import Job
from pipelines.search_space import SEARCH_PODS
from pipelines.task import Progress, Task, TaskConfig, dump_config

if TYPE_CHECKING:
    from optuna import Study

DEFAULT = "default"  # folder beside the model, with what the recipe's own configuration gives
_LOOK = 0.5  # seconds between two looks at the trials
_RESTARTS = 3  # of each process
_WAIT = 2 * studies.NAMELESS  # seconds for trials that nobody has put a name on


def search_and_train(
    task: Task, config: TaskConfig, dataset: Path, target: Path, checkpoints: Path, progress: Progress
) -> dict[str, Any]:
    """Search as ``config.search`` says, then train on `dataset` what was best on the validation rows.

    ``target/model`` gets the model, and ``target/default`` what the recipe gives without the search, with its own
    ``train.json``; the test rows decide about both, once, in the evaluation.

    Returns:
        what `TaskConfig.train` does, and ``search``: a document of `pipelines.search.found`.

    Raises:
        PlatformError: no space, no trial that works, another search of that name, or a storage that is away.
    """
    pods = int(os.environ.get(SEARCH_PODS, "0"))
    config, job = prepared(task, config, dataset, checkpoints)
    study = made_study(task, config, job, dataset)
    began = time.time()
    _work(study, job, config, progress, pods)
    found = document(task, config, study, time.time() - began)
    shutil.rmtree(job.dataset, ignore_errors=True)
    return {**_train(task, config, found, dataset, target, checkpoints, progress), "search": found}


def prepared(task: Task, config: TaskConfig, dataset: Path, checkpoints: Path) -> tuple[TaskConfig, Job]:
    """The configuration with its space, and what the processes of the search are told; their rows are made."""
    import_optuna()
    space = checked_space(task, config)
    config = replace(config, search=replace(config.search, space=space))
    shared, name = place(task, config, dataset, checkpoints)
    folder = checkpoints / "search"
    if not (data := folder / "dataset").exists():
        inner_dataset(task, dataset, data)
    known = json.loads(dump_config(config))
    job = Job(
        task=task.name,
        config=dump_config(config),
        space=dict(space),
        known={other: key_value(known, other) for one in space.values() for other in one.when}
        | {key: key_value(known, key) for key in space},
        dataset=data,
        folder=folder,
        shared=shared,
        study=name,
        until=time.time() + config.search.seconds if config.search.seconds else 0.0,
    )
    return config, job


def made_study(task: Task, config: TaskConfig, job: Job, dataset: Path) -> Study:
    """The study of a `prepared` search: made if it is not there, with the recipe's own values as its first trial."""
    search = config.search
    first = {
        key: studies.stored(one, job.known[key])
        for key, one in job.space.items()
        if all(job.known[other] in [*values] for other, values in one.when.items())
    }
    storage = studies.patiently(
        lambda: studies.open_storage(studies.address(search, job.shared)), search.patience, "opening it"
    )
    directions: list[studies.Direction] = [
        "maximize" if higher_is_better(task, each) else "minimize" for each in search.metrics
    ]
    return studies.make_study(storage, job.study, directions, first, signature(config, dataset), search.patience)


def import_optuna() -> None:
    """Refuse early where the extra is not installed.

    Raises:
        PlatformError: ``code="missing_package"``.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as err:
        raise PlatformError(
            "a search needs Optuna, which is not installed",
            fix="pip install 'fairlead[search]'",
            code="missing_package",
        ) from err


def place(task: Task, config: TaskConfig, dataset: Path, checkpoints: Path) -> tuple[Path, str]:
    """The folder of a study, which searches of one name share, and its name; the same when it is started again."""
    if name := config.search.name:
        key = hashlib.sha256(f"{task.name}\0{name}".encode()).hexdigest()[:24]
        return checkpoints.parent / "studies" / key, f"{task.name}/{name}"
    return checkpoints / "search", f"{task.name}/{signature(config, dataset)[:24]}"


def signature(config: TaskConfig, dataset: Path) -> str:
    """Names all that the values of trials depend on: configuration, space, metrics, limits and data."""
    from pipelines.data.seen import FILE

    search = config.search
    told = {"metrics": search.metrics, "at_most": dict(search.at_most), "at_least": dict(search.at_least)}
    base = json.loads(dump_config(config))
    base["search"] = {**told, "space": base["search"]["space"]}
    digest = hashlib.sha256(json.dumps(base, sort_keys=True).encode())
    for file in (dataset / "dataset.json", dataset / FILE):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _work(study: Study, job: Job, config: TaskConfig, progress: Progress, pods: int) -> None:
    """Processes that work on the trials, until all are done; one that dies is started again.

    pods: have worked on them before; what one of them was killed at is done here at once, and what those of another
    run with the same study were, once they give no sign of life.
    """
    search = config.search
    file = job.folder / "job.json"
    write_text(file, job.model_dump_json())
    waiting = time.monotonic() + (studies.SILENT if pods else _WAIT)
    while True:
        with _Workers(file, 1 if pods else search.workers) as workers:
            while workers.running():
                time.sleep(_LOOK)
                _show(study, config, progress)
        left = studies.patiently(lambda: studies.reclaim(study, ended=pods > 0), search.patience, "counting the trials")
        trials = studies.patiently(lambda: study.get_trials(deepcopy=False), search.patience, "counting the trials")
        unknown = [
            one for one in trials if one.state.name == "RUNNING" and (pods or studies.WORKER not in one.user_attrs)
        ]
        short = bool(pods) and studies.counted(trials) < search.trials and not studies.hopeless(trials)
        ended = bool(job.until) and time.time() > job.until
        if ended or not (left or short or (unknown and time.monotonic() < waiting)):
            progress(search.trials, search.trials)
            return
        time.sleep(_LOOK)


def work_in_pod(job: Job, config: TaskConfig, number: int) -> None:
    """Be the pod `number` of a search: a process that works on trials until there are enough."""
    file = job.folder / "job.json"
    write_text(file, job.model_dump_json())
    with _Workers(file, 1, number) as workers:
        while workers.running():
            time.sleep(_LOOK)


def _show(study: Study, config: TaskConfig, progress: Progress) -> None:
    """The number of trials, and the best of the first metric, if the storage answers at once."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        trials = study.get_trials(deepcopy=False)
    except (StorageInternalError, SQLAlchemyError, UnboundLocalError, OSError):
        return
    ended = [one for one in trials if one.state.name in ("COMPLETE", "PRUNED") or studies.failed(one)]
    values = [one.values[0] for one in trials if one.values and one.state.name == "COMPLETE"]
    best = max if study.directions[0].name == "MAXIMIZE" else min
    metrics = {f"best_{config.search.metrics[0]}": best(values)} if values else {}
    progress(min(len(ended), config.search.trials), config.search.trials, **metrics)


class _Workers:
    """The processes of a search on this machine."""

    def __init__(self, job: Path, count: int, first: int = 0) -> None:
        self._job = job
        cores = max(1, len(os.sched_getaffinity(0)) // count)
        # Processes that each take all cores are slower than one.
        self._environment = os.environ | ({"OMP_NUM_THREADS": str(cores)} if count > 1 else {})
        self._left = dict.fromkeys(range(first, first + count), _RESTARTS)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> _Workers:
        for index in self._left:
            self._start(index)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()

    def _start(self, index: int) -> None:
        command = [sys.executable, "-m", "pipelines.search.worker", str(self._job), str(index)]
        with self._log(index).open("ab") as log:
            self._processes[index] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=self._environment
            )

    def _log(self, index: int) -> Path:
        return self._job.with_name(f"worker-{index}.log")

    def running(self) -> bool:
        """Whether some still work.

        Raises:
            PlatformError: one says why it cannot, or dies again and again.
        """
        for index, process in [*self._processes.items()]:
            code = process.poll()
            if code is None:
                continue
            if code == 0:
                del self._processes[index]
            elif code == 1 or not self._left[index]:
                raise self._failed(index, code)
            else:
                self._left[index] -= 1
                self._start(index)
        return bool(self._processes)

    def _failed(self, index: int, code: int) -> PlatformError:
        tail = self._log(index).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-6:]
        return PlatformError(
            "a process of the search ended before the search did",
            detail=f"exit code {code}: {' | '.join(tail)[:1000] or 'it said nothing; memory may have run out'}",
            fix="go on with the run, with fewer at a time: --workers 1; what was tried is kept",
            code="search_worker",
        )


def _train(
    task: Task,
    config: TaskConfig,
    found: Mapping[str, Any],
    dataset: Path,
    target: Path,
    checkpoints: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Train the best configuration to ``target/model``, and the recipe's own to ``target/default``."""
    for name in ("best", DEFAULT):
        (checkpoints / name).mkdir(parents=True, exist_ok=True)
    best = changed(task, config, found["best"]["settings"])
    trained = best.train(task, dataset, target / "model", checkpoints / "best", progress)
    default = target / DEFAULT
    shutil.rmtree(default, ignore_errors=True)
    if found["best"]["number"] != 0:
        (default / "model").mkdir(parents=True)
        own = changed(task, config, {}).train(task, dataset, default / "model", checkpoints / DEFAULT, progress)
        write_json(default / "train.json", own)
    parameters = {**trained["parameters"], **{f"searched.{key}": value for key, value in _flat(found).items()}}
    return {**trained, "parameters": parameters}


def _flat(found: Mapping[str, Any]) -> dict[str, Any]:
    """The best values as parameters of a model are: numbers and texts."""
    plain = clean_numbers(dict(found["best"]["settings"]))
    return {
        key: value if isinstance(value, bool | int | float | str) else json.dumps(value) for key, value in plain.items()
    }
