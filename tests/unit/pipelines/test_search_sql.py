"""Trials in an SQL server: few statements, and what is written is whole whoever dies or loses its connection."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipelines.search import run_search, study
from pipelines.search.worker import Job, Worker
from pipelines.steps.train import train
from tests.servers import MariaDB

optuna = pytest.importorskip("optuna")
NAMES = ("a", "b", "c", "d", "e", "f")


class Process:
    """One process of a search."""

    def __init__(self, folder: Path, index: int) -> None:
        self.who, self.lock = f"elsewhere:{index}:0", folder / "lock"
        self.storage: Any = study.open_storage(f"sqlite:///{folder}/trials.db")
        study.make_study(self.storage, "s", ["maximize"], {"a": 0.5}, "signed", 1.0)
        sampler = optuna.samplers.TPESampler(seed=index)
        self.study = optuna.load_study(study_name="s", storage=self.storage, sampler=sampler)

    def ask(self, look: bool = False) -> Any:
        """The next trial, without values."""
        return study.ask(self.study, 50, self.who, self.lock, 1.0, look)

    def chosen(self) -> Any:
        """The next trial, with its values written."""
        trial = self.ask()
        for name in NAMES:
            trial.suggest_float(name, 0.0, 1.0)
        study.written(self.study, trial)
        return trial


def seen(folder: Path) -> list[Any]:
    """The trials as Optuna reads them."""
    return list(optuna.load_study(study_name="s", storage=f"sqlite:///{folder}/trials.db").trials)


@pytest.fixture
def process(tmp_path: Path) -> Callable[[int], Process]:
    return lambda index: Process(tmp_path, index)


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    said: list[str] = []

    def execute(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        said.append(statement)

    def commit(_connection: Any) -> None:
        said.append("COMMIT")

    listened: list[tuple[str, Any]] = [("before_cursor_execute", execute), ("commit", commit)]
    for name, heard in listened:
        event.listen(Engine, name, heard)
    yield said
    for name, heard in listened:
        event.remove(Engine, name, heard)


def test_a_trial_is_written_by_few_statements(process: Callable[[int], Process], statements: list[str]) -> None:
    one = process(1)
    for _ in range(2):
        study.complete(one.study, one.chosen(), [0.5])
    statements.clear()
    for _ in range(4):
        study.complete(one.study, one.chosen(), [0.5])
    assert statements.count("COMMIT") <= 20
    assert len(statements) - statements.count("COMMIT") <= 52


def test_who_works_on_a_trial_and_its_values_are_written_before_it_is_trained(
    process: Callable[[int], Process], tmp_path: Path
) -> None:
    one = process(1)
    study.complete(one.study, one.chosen(), [0.5])
    trial = one.ask()
    assert seen(tmp_path)[1].user_attrs == {study.WORKER: one.who}, "at once: nobody takes it for lost"
    values = {name: trial.suggest_float(name, 0.0, 1.0) for name in NAMES}
    study.written(one.study, trial)
    found = seen(tmp_path)[1]
    assert (found.params, found.state.name, list(found.params)) == (values, "RUNNING", list(NAMES))
    assert one.study.trials[1].params == values


def test_who_is_killed_has_its_trial_repeated_with_the_same_values(process: Callable[[int], Process]) -> None:
    one = process(1)
    values = one.chosen().params | one.chosen().params  # the first is that of the recipe
    again = process(1)  # who has the same name
    again.ask(look=True)
    second = again.ask()
    assert {name: second.suggest_float(name, 0.0, 1.0) for name in NAMES} == values
    states = [trial.state.name for trial in again.study.trials]
    assert states == ["FAIL", "FAIL", "RUNNING", "RUNNING"]


def test_what_is_written_again_after_a_lost_connection_is_there_once(
    process: Callable[[int], Process], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = process(1)
    study.complete(one.study, one.chosen(), [0.5])
    trial = one.ask()
    trial.suggest_float("a", 0.0, 1.0)
    drafts = dict(one.storage._drafts)
    study.written(one.study, trial)
    one.storage._drafts.update(drafts)  # the server has taken it, and the answer was lost
    study.written(one.study, trial)
    study.complete(one.study, trial, [0.25])
    study.complete(one.study, trial, [0.25])
    (found,) = seen(tmp_path)[1:]
    assert (found.params, found.values, found.state.name) == ({"a": trial.params["a"]}, [0.25], "COMPLETE")
    lost = one.ask()
    monkeypatch.setattr(one.storage, "_drafts", {lost._trial_id: one.storage._drafts[lost._trial_id]})
    assert one.ask(look=True).number == 3, "the call was lost: its trial is given away again"
    assert [trial.state.name for trial in seen(tmp_path)] == ["COMPLETE", "COMPLETE", "FAIL", "RUNNING"]


def test_what_others_find_is_read_and_what_they_ended_is_not_written_over(
    process: Callable[[int], Process], tmp_path: Path
) -> None:
    one, other = process(1), process(2)
    mine, theirs = one.chosen(), other.chosen()
    study.complete(other.study, theirs, [0.75])
    assert other.study.tell(mine.number, state=optuna.trial.TrialState.FAIL).state.name == "FAIL"
    study.complete(one.study, mine, [0.25])
    third = one.chosen()
    known = {trial.number: (trial.state.name, trial.values) for trial in one.storage._studies[1].trials.values()}
    assert known == {0: ("FAIL", None), 1: ("COMPLETE", [0.75]), 2: ("RUNNING", None)}
    assert one.storage._studies[1].trials[1].params == theirs.params
    third.report(0.5, 1)
    third.set_constraint("size", 1.0)
    study.complete(one.study, third, [0.5])
    one.ask()
    kept = one.storage._studies[1].trials[2]
    assert (kept.values, kept.intermediate_values, kept.constraints) == ([0.5], {1: 0.5}, {"size": 1.0})
    assert [trial.values for trial in seen(tmp_path)] == [None, [0.75], [0.5], None]


def test_a_draft_that_ends_without_values_says_why(process: Callable[[int], Process], tmp_path: Path) -> None:
    one = process(1)
    study.complete(one.study, one.chosen(), [0.5])
    trial = one.ask()
    trial.suggest_float("a", 0.0, 1.0)
    with pytest.raises(ValueError, match="a"):
        trial.suggest_categorical("a", ["x"])
    trial.set_user_attr(study.ERROR, "no such value")
    one.study.tell(trial.number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
    found = seen(tmp_path)[1]
    assert (found.state.name, found.user_attrs[study.ERROR], list(found.params)) == ("FAIL", "no such value", ["a"])


class Threads:
    """In place of the processes of a search: threads, each with a connection and a study of its own."""

    def __init__(self, job: Path, count: int, first: int = 0) -> None:
        self._job, self._indices = Job.model_validate_json(job.read_text()), range(first, first + count)

    def __enter__(self) -> Threads:
        self._pool = ThreadPoolExecutor(len(self._indices))
        self._work: list[Future[None]] = [self._pool.submit(self._run, index) for index in self._indices]
        return self

    def _run(self, index: int) -> None:
        Worker(self._job, index).run()

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def running(self) -> bool:
        for each in self._work:
            if each.done():
                each.result()
        return not all(each.done() for each in self._work)


@pytest.mark.integration
def test_a_mariadb_that_is_stopped_in_the_middle_and_started_again_loses_no_trial(
    candidate: Path, toy_config: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_search, "_Workers", Threads)
    monkeypatch.setattr(run_search, "_LOOK", 0.05)
    monkeypatch.setenv("FAIRLEAD_SEARCH_PASSWORD", "pw")
    server = MariaDB(tmp_path / "mariadb")
    begun, away, wanted = set[str](), list[int](), 12

    def disturb() -> None:
        while len(begun) < 4:
            begun.update(each.name for each in (tmp_path / "checkpoints" / "search").glob("trial-*"))
            time.sleep(0.02)
        server.stop()
        away.append(len(begun))
        time.sleep(1.0)
        server.started()

    space = {"model.rounds": {"low": 1, "high": 30}}
    search = {"trials": wanted, "space": space, "metrics": ["roc_auc"], "workers": 2, "storage": server.address}
    config = toy_config(search=search, model={"pause": 0.02})
    other = threading.Thread(target=disturb)
    other.start()
    try:
        train("toy", config, str(candidate / "dataset"), str(tmp_path / "checkpoints"), str(tmp_path / "out"))
        other.join()
        trials = optuna.load_study(study_name=None, storage=server.address.replace("@", ":pw@")).trials
    finally:
        server.stop()
    found = json.loads((tmp_path / "out" / "train.json").read_text())["search"]
    assert away == [4], "the server was stopped in the middle"
    assert (found["counts"]["tried"], len({one["number"] for one in found["trials"]})) == (wanted, wanted)
    ended = [one for one in trials if one.state.name == "COMPLETE"]
    assert len(ended) == wanted, "no more than was asked, though answers were lost"
    assert all(set(one.params) == set(space) and len(one.values) == 1 for one in ended)
