"""One process of a search: asks for a trial, trains and measures it, tells what came out, until there are enough.

``python -m pipelines.search.worker JOB`` with a `Job` in a file. It ends when its stdin does, that is when the process
that started it is gone.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from contracts.errors import PlatformError
from pipelines.io.events import named
from pipelines.io.files import read_json
from pipelines.search import study as studies
from pipelines.search.trial import changed, higher_is_better, train_and_measure
from pipelines.search_space import SEARCH_PODS, Dimension
from pipelines.tasks import get_task, load_config

if TYPE_CHECKING:
    from optuna import Study, Trial

    from pipelines.task import Task, TaskConfig

_BEAT = 30.0  # seconds between two signs of life
_FIRST = 1.0  # until the first: short trials need none
_LOOK = 10.0  # seconds between two looks for trials that nobody works on


class Job(BaseModel):
    """What a process of a search is told.

    Attributes:
        config: of the recipe, as JSON.  known: its values by key, for conditions.  dataset: an `inner_dataset`.
        folder: for what trials write.  shared: of the study's file and the lock for asking.
        until: seconds since 1970 after which no trial starts, 0 for none.
    """

    task: str
    config: str
    space: dict[str, Dimension]
    known: dict[str, Any]
    dataset: Path
    folder: Path
    shared: Path
    study: str
    until: float = 0.0


class Worker:
    """Works on the trials of a study, one after the other."""

    def __init__(self, job: Job, index: int) -> None:
        self.job, self.who = job, studies.token(index)
        self.task: Task = get_task(job.task)
        self.config: TaskConfig = load_config(self.task, job.config)
        self.patience = self.config.search.patience
        self.last = -1  # number of the trial before, where it came to a value
        self.others = int(os.environ.get(SEARCH_PODS, "0"))
        self.signs = [-1.0 if higher_is_better(self.task, name) else 1.0 for name in self.config.search.metrics]
        self.study = self._open(index)

    def _open(self, index: int) -> Study:
        import optuna

        search = self.config.search

        def opened() -> Study:
            return optuna.load_study(
                study_name=self.job.study,
                storage=studies.open_storage(studies.address(search, self.job.shared)),
                sampler=studies.sampler(search, self.config.seed + index, any(d.when for d in self.job.space.values())),
                pruner=studies.pruner(search, type(self.config).reports),
            )

        return studies.patiently(opened, self.patience, "opening it")

    def run(self) -> None:
        """Work until enough is tried, the time is up, or nothing works."""
        lock, looked = self.job.shared / ".ask.lock", 0.0
        while not self.job.until or time.time() < self.job.until:
            look = time.monotonic() - looked > _LOOK
            looked = time.monotonic() if look else looked
            most, last, self.last = self.config.search.trials, self.last, -1
            trial = studies.ask(self.study, most, self.who, lock, self.patience, look, self.others, last)
            if trial is None:
                return
            self._try(trial)

    def _try(self, trial: Trial) -> None:
        from optuna.exceptions import TrialPruned
        from optuna.trial import TrialState

        ended = threading.Event()
        threading.Thread(target=self._live, args=(trial, ended), daemon=True).start()
        try:
            values = self._storage(lambda: studies.suggested(trial, self.job.space, self.job.known))
            self._storage(lambda: studies.written(self.study, trial))
            found = self._measured(trial, values)
        except TrialPruned:
            self._storage(lambda: self.study.tell(trial.number, state=TrialState.PRUNED, skip_if_finished=True))
        except Exception as err:
            error = named(err, "the trial")
            if error.code == "no_storage":
                raise error from err
            said = f"{error.headline}: {error.detail}"[:500] if error.detail else error.headline
            self._storage(lambda: trial.set_user_attr(studies.ERROR, said))
            self._storage(lambda: self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True))
        else:
            told = [found[name] for name in self.config.search.metrics]
            self._storage(lambda: studies.complete(self.study, trial, told))
            self.last = trial.number
        finally:
            ended.set()

    def _measured(self, trial: Trial, values: dict[str, Any]) -> dict[str, float]:
        search = self.config.search
        wanted = tuple(dict.fromkeys([*search.metrics, *search.at_most, *search.at_least]))
        config = changed(self.task, self.config, values)
        folder = self.job.folder / f"trial-{trial.number}"
        found = train_and_measure(self.task, config, self.job.dataset, folder, wanted, self._report(trial))
        if absent := [name for name in wanted if name not in found]:
            raise PlatformError(
                f"{absent[0]} is not defined on the validation rows", fix="choose another --metric", code="bad_config"
            )
        if search.at_most or search.at_least:
            self._storage(lambda: trial.set_user_attr("measured", found))
        for sign, limits in ((1.0, search.at_most), (-1.0, search.at_least)):
            for name, limit in limits.items():
                beyond = sign * (found[name] - limit)
                self._storage(lambda name=name, beyond=beyond: trial.set_constraint(name, beyond))
        return found

    def _report(self, trial: Trial) -> Any:
        """The training's progress: what it reports may end the trial, where one metric is optimised."""
        from optuna.exceptions import TrialPruned

        reports, sign = type(self.config).reports, self.signs[0]
        pruned = self.config.search.pruner != "none" and reports and len(self.signs) == 1

        def report(done: float, total: float | None = None, **metrics: Any) -> None:
            if not pruned or reports not in metrics:
                return
            # A loss: less is better. The study's direction decides how it is compared.
            self._storage(lambda: trial.report(sign * float(metrics[reports]), int(done)))
            if self._storage(trial.should_prune):
                raise TrialPruned

        return report

    def _live(self, trial: Trial, ended: threading.Event) -> None:
        ended.wait(_FIRST)
        while not ended.is_set():
            self._storage(lambda: studies.beat(self.study, trial))
            ended.wait(_BEAT)

    def _storage(self, call: Any) -> Any:
        return studies.patiently(call, self.patience, "a trial could not be told")


def end_with_parent() -> None:
    """End this process when stdin does: nobody would read what it finds."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main(arguments: list[str]) -> int:
    """Run until there is nothing to do; 0, or 1 with the reason on stderr."""
    end_with_parent()
    file, index = arguments
    try:
        Worker(Job.model_validate(read_json(file)), int(index)).run()
    except PlatformError as err:
        sys.stderr.write(f"{err}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
