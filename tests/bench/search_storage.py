"""Storages of a search: what they cost, and what is left of it when they and its processes go away."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.recipes.tabular.base import TabularRecipe
from pipelines.search import run_search, worker
from pipelines.search.worker import Job, Worker
from pipelines.task import GateConfig
from tests.bench.report import Row
from tests.bench.search_parts import Inline, Smooth, built, known, silent, smooth_frame
from tests.servers import MariaDB

ROOT, TOY = Path(__file__).parents[2], Path(__file__).parents[1] / "toy"


def storage(home: Path) -> Iterator[Row]:
    """What a trial costs beside its fit, and what is left of a search whose server and processes are killed."""
    if not shutil.which("mariadbd") or os.geteuid() != 0:
        sys.exit("bench-search needs mariadbd (apt-get install mariadb-server) and root, to run it")
    os.environ["FAIRLEAD_SEARCH_PASSWORD"] = "pw"
    server = MariaDB(home / "mariadb")
    try:
        yield Row(
            case="a trial beside its fit, MariaDB, mean of 100",
            contestant="Optuna's own loop",
            value=bare(server.address.replace("@", ":pw@")),
            unit="ms",
        )
        yield Row(
            case="a trial beside its fit, MariaDB, mean of 100",
            contestant="its statements alone, by the driver",
            value=floor(server.address.replace("@", ":pw@")),
            unit="ms",
        )
        for name, address in (("file", ""), ("MariaDB", server.address)):
            wall, processor = beside(home / name, address)
            case, said = f"a trial beside its fit, {name}, mean of 100", "fairlead, TPE, 6 settings"
            yield Row(case=case, contestant=said, value=wall, unit="ms", goal="<= 50")
            yield Row(case=case, contestant=f"{said}, of the processor", value=processor, unit="ms")
        if "quick" not in sys.argv:
            yield from stopped(home, server)
    finally:
        server.stop()


def bare(address: str) -> float:
    """Milliseconds of a trial of `Study.optimize` with as many settings, for what the server and the machine take."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(address, heartbeat_interval=60, grace_period=180)
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.TPESampler(seed=0), direction="maximize")
    began = time.perf_counter()
    study.optimize(lambda trial: sum(trial.suggest_float(f"x{at}", 0.0, 1.0) for at in range(6)), n_trials=100)
    return 1000 * (time.perf_counter() - began) / 100


def floor(address: str, trials: int = 100) -> float:
    """Milliseconds of the statements of a trial alone: a driver that is told to write them, in as many transactions."""
    import pymysql
    from sqlalchemy.engine import make_url

    url = make_url(address)
    server = {"host": url.host, "port": url.port, "user": url.username, "password": url.password}
    connection = pymysql.connect(database=url.database, **server)
    with connection, connection.cursor() as cursor:
        tell = cursor.execute
        tell("INSERT INTO studies (study_name) VALUES ('floor')")
        study = cursor.lastrowid
        connection.commit()
        began = time.perf_counter()
        for _ in range(trials):
            tell("SELECT trial_id, state FROM trials WHERE study_id = %s AND trial_id > 0", (study,))
            connection.commit()
            tell("SELECT study_id FROM studies WHERE study_id = %s FOR UPDATE", (study,))
            tell("INSERT INTO trials (study_id, state, datetime_start) VALUES (%s, 'RUNNING', NOW())", (study,))
            trial = cursor.lastrowid
            tell("SELECT count(trial_id) FROM trials WHERE study_id = %s AND trial_id < %s", (study, trial))
            (number,) = cursor.fetchone() or (0,)
            tell("UPDATE trials SET number = %s WHERE trial_id = %s", (number, trial))
            tell("INSERT INTO trial_user_attributes (trial_id, `key`, value_json) VALUES (%s, 'w', '1')", (trial,))
            connection.commit()
            tell("SELECT state FROM trials WHERE trial_id = %s", (trial,))
            insert = (
                "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) VALUES (%s, %s, 1, '')"
            )
            cursor.executemany(insert, [(trial, f"x{at}") for at in range(6)])
            tell("INSERT INTO trial_system_attributes (trial_id, `key`, value_json) VALUES (%s, 's', '1')", (trial,))
            connection.commit()
            tell("UPDATE trials SET state = 'COMPLETE', datetime_complete = NOW() WHERE trial_id = %s", (trial,))
            insert = "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (%s, 0, 1, 'FINITE')"
            tell(insert, (trial,))
            connection.commit()
        return 1000 * (time.perf_counter() - began) / trials


def beside(home: Path, address: str) -> tuple[float, float]:
    """Milliseconds from asking for a trial to telling it, without training and measuring; and of our processor."""
    recipe = TabularRecipe(recipe="trees", gate=GateConfig(primary="roc_auc"))
    task: Any = Smooth()
    frame = smooth_frame(0)[:400]
    dataset = built(home / "data", {"train": frame[:200], "valid": frame[200:300], "test": frame[300:]})
    spent: list[float] = []
    values = np.random.default_rng(0)
    real = vars(worker)["train_and_measure"]

    def measured(*_: Any) -> dict[str, float]:
        return {"roc_auc": float(values.random())}

    class Timed(Inline):
        def running(self) -> bool:
            one = Worker(Job.model_validate_json(self.job.read_text()), 0)
            began = time.perf_counter(), time.process_time()
            one.run()
            spent.extend([time.perf_counter() - began[0], time.process_time() - began[1]])
            return False

    run_search._Workers = Timed  # type: ignore[misc, assignment]
    vars(worker)["train_and_measure"] = measured
    try:
        with known(task, recipe):
            search = replace(recipe.search, trials=100, metrics=("roc_auc",), storage=address)
            (home / "out" / "model").mkdir(parents=True)
            (home / "c").mkdir()
            config = replace(recipe, search=search)
            run_search.search_and_train(task, config, dataset, home / "out", home / "c", silent)
    finally:
        vars(worker)["train_and_measure"] = real
    return 1000 * spent[0] / 100, 1000 * spent[1] / 100


def stopped(home: Path, server: MariaDB, workers: int = 8, each: int = 60, away: float = 30.0) -> Iterator[Row]:
    """8 processes by 60 trials of a small task; the server is stopped for 30 s and two processes are killed."""
    path = os.pathsep.join([str(TOY), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "FAIRLEAD_HOME": str(home / "killed"), "OMP_NUM_THREADS": "1"}
    environment["FAIRLEAD_STUDIES"] = server.address
    command = [sys.executable, "-m", "deploy.cli", "search", "toy", "--json", "-n", str(workers * each)]
    space = "search.space={model.rounds: {low: 5, high: 25}}"
    options = ["-w", str(workers), "-m", "roc_auc", "--set", space, "--set", "model.pause=0.01"]

    def disturb() -> None:
        import psutil

        until = time.monotonic() + 120
        found: list[Any] = []
        while len(found) < workers and time.monotonic() < until:
            children = psutil.Process(process.pid).children(recursive=True)
            found = [one for one in children if "pipelines.search.worker" in one.cmdline()]
            time.sleep(0.5)
        time.sleep(15)
        os.kill(found[0].pid, signal.SIGKILL)
        server.stop()
        time.sleep(away / 2)
        os.kill(found[1].pid, signal.SIGKILL)
        time.sleep(away / 2)
        server.started()

    began = time.perf_counter()
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True, env=environment) as process:
        other = threading.Thread(target=disturb)
        other.start()
        said, _ = process.communicate(timeout=1500)
        other.join()
    document = json.loads(said)
    if "search" not in document:
        sys.exit(json.dumps(document, indent=1)[:3000])
    search = document["search"]
    numbers = [one["number"] for one in search["trials"]]
    case = f"{workers} processes by {each} trials, MariaDB away for {away:.0f} s, two processes killed"
    sys.stdout.write(f"{case}: {search['counts']} in {time.perf_counter() - began:.0f} s\n")
    tried = search["counts"]["tried"]
    yield Row(case=case, contestant="trials less than asked", value=workers * each - tried, unit="trials", goal="<= 0")
    yield Row(case=case, contestant="counted twice", value=len(numbers) - len({*numbers}), unit="trials", goal="<= 0")
    again = search["counts"]["lost and repeated"]
    yield Row(case=case, contestant="lost and repeated", value=again, unit="trials")
