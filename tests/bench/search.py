"""A search and a plan, beside what they cost and what came true: ``make bench-search [ARGS="smooth storage plan"]``.

``adult`` needs FAIRLEAD_TEST_DATA with ``tabular/`` for Adult, ``storage`` mariadbd (as root). Splits are fixed;
the test rows are asked once for each search, after the choice.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import pipelines.tasks
from contracts.endpoints import Endpoints
from deploy.cli.machine.ports import free_port
from deploy.cli.training import plan as planning
from pipelines.data.seen import Seen, row_hashes
from pipelines.forecast import amount, learning_curve
from pipelines.recipes.tabular.base import TabularRecipe
from pipelines.recipes.tabular.task import TabularTask
from pipelines.run import Run
from pipelines.search import run_search, worker
from pipelines.search.outcome import judged
from pipelines.search.worker import Job, Worker
from pipelines.task import Column, GateConfig, TaskConfig, dump_config
from pipelines.tasks import get_task, recipe_config
from pipelines.training.boosting import LightGBMConfig
from pipelines.values import as_document
from tests.bench.report import FOLDER, Row, write

ROOT, TOY = Path(__file__).parents[2], Path(__file__).parents[1] / "toy"
ROWS, INPUTS, SEEDS, TRIALS = 20_000, 30, (1, 2, 3), 30
SIX = (
    ("credit", "lightgbm", {}),
    ("credit", "scorecard", {}),
    ("credit", "logistic", {"simulator.applications": 30_000}),
    ("credit", "lightgbm", {"simulator.applications": 60_000, "model.leaves": 63}),
    ("news", "linear", {}),
    ("sentiment", "linear", {}),
)


def silent(*_: Any, **__: Any) -> None:
    """Progress that nobody looks at."""


class Inline:
    """In place of the processes of a search: in this one, which knows the tasks of this file."""

    def __init__(self, job: Path, count: int) -> None:
        self.job = job

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def running(self) -> bool:
        Worker(Job.model_validate_json(self.job.read_text()), 0).run()
        return False


class Smooth(TabularTask):
    """Two classes by a smooth function of many numbers, each of which says a little."""

    name, title, id, label = "smooth", "Which side?", "id", "side"
    classes = ("no", "yes")
    columns = (
        Column(name="id", dtype="string"),
        *(Column(name=f"x{at}", dtype="float64") for at in range(INPUTS)),
        Column(name="side", dtype="string"),
    )


def smooth_frame(seed: int) -> Any:
    import pandas as pd

    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ROWS, INPUTS))
    direction = rng.normal(size=INPUTS)
    logit = 1.5 * np.tanh(x @ direction / np.linalg.norm(direction)) + 0.6 * np.sin(x[:, :10]).sum(axis=1)
    side = rng.random(ROWS) < 1 / (1 + np.exp(-logit))
    frame = pd.DataFrame(x, columns=[f"x{at}" for at in range(INPUTS)])
    return frame.assign(id=[f"{seed}-{at}" for at in range(ROWS)], label=np.where(side, "yes", "no"))


@contextmanager
def known(task: Any, recipe: TaskConfig) -> Iterator[None]:
    """The task as any other task, in this process."""
    before = pipelines.tasks.get_task, pipelines.tasks.task_names
    task.recipes, task.default_recipe = {recipe.recipe: recipe}, recipe.recipe
    names = [*before[1](), task.name]
    pipelines.tasks.task_names = lambda: names
    module: Any = type(sys)(f"pipelines.tasks.{task.name}")
    module.TASK = task
    sys.modules[module.__name__] = module
    try:
        yield
    finally:
        pipelines.tasks.task_names = before[1]
        del sys.modules[module.__name__]


def searched(task: Any, recipe: TaskConfig, dataset: Path, home: Path, **search: Any) -> dict[str, Any]:
    """The document of a search, with what the test rows say."""
    import pandas as pd

    from contracts.engines import load_engine
    from pipelines.evaluation import scoring

    config = replace(recipe, search=replace(recipe.search, **{"trials": TRIALS, "metrics": ("roc_auc",), **search}))
    out, checkpoints = home / "out", home / "checkpoints" / "one"
    (out / "model").mkdir(parents=True)
    checkpoints.mkdir(parents=True)
    run_search._Workers = Inline  # type: ignore[misc, assignment]
    trained = run_search.search_and_train(task, config, dataset, out, checkpoints, silent)
    frame = pd.read_parquet(dataset / "test.parquet").reset_index(drop=True)
    bundle = scoring.provisional(out, scoring.fields_of(task, config, trained))
    columns = scoring.columns_of(frame, bundle.document.signature.inputs)
    answers = scoring.predict(load_engine(bundle), columns, bundle.document)
    given = (frame, answers, bundle.document.signature.output, bundle.document.decision)
    FOLDER.mkdir(parents=True, exist_ok=True)
    return judged(trained["search"], task, config, out, frame, given, FOLDER)


def built(folder: Path, parts: dict[str, Any]) -> Path:
    """A data set as the step build_dataset writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in parts.items():
        frame.assign(row_key=frame["id"]).reset_index(drop=True).to_parquet(folder / f"{name}.parquet", index=False)
    Seen.of(row_hashes([*parts["train"]["id"], *parts["valid"]["id"]])).write(folder)
    (folder / "dataset.json").write_text(json.dumps({"rows": {name: len(frame) for name, frame in parts.items()}}))
    return folder


def smooth(home: Path) -> Iterator[Row]:
    """What 30 trials bring on smooth data over LightGBM's own defaults, and over ours."""
    theirs = LightGBMConfig(
        learning_rate=0.1, leaves=31, min_leaf=20, feature_fraction=1.0, bagging_fraction=1.0, l2=0.001
    )
    for said, model in (("LightGBM's defaults", theirs), ("our recipe", LightGBMConfig())):
        recipe = TabularRecipe(recipe="trees", model=model, gate=GateConfig(primary="roc_auc"))
        yield from gains_over(said, recipe, home / said.partition(" ")[0])


def gains_over(said: str, recipe: TabularRecipe, home: Path) -> Iterator[Row]:
    """The gain of 30 trials over a recipe, mean of three seeds."""
    gains: list[dict[str, float]] = []
    task: Any = Smooth()
    with known(task, recipe):
        for seed in SEEDS:
            frame = smooth_frame(seed)
            cut = [int(ROWS * share) for share in (0.6, 0.8)]
            parts = {"train": frame[: cut[0]], "valid": frame[cut[0] : cut[1]], "test": frame[cut[1] :]}
            dataset = built(home / f"smooth-{seed}", parts)
            gains.append(searched(task, recipe, dataset, home / f"search-{seed}")["gain"])
    test, valid = (float(np.mean([one[part] for one in gains])) * 100 for part in ("test", "valid"))
    case, goal = f"smooth synthetic, {TRIALS} trials over {said}", ">= 1.5" if said.startswith("LightGBM") else ""
    yield Row(case=case, contestant="on test", value=test, unit="AUC points", goal=goal)
    yield Row(case=case, contestant="on validation", value=valid, unit="AUC points")


def adult(home: Path) -> Iterator[Row]:
    """What the search says of Adult."""
    import pandas as pd

    from tests.bench.trust import AdultData

    recipe = TabularRecipe(recipe="trees", gate=GateConfig(primary="roc_auc"))
    census = AdultData(home / "adult")
    parts = {name: pd.read_parquet(census.folder / f"{name}.parquet") for name in ("train", "valid", "test")}
    with known(census.task, recipe):
        found = searched(census.task, recipe, built(census.folder, parts), home / "search-adult")
    sys.stdout.write(f"Adult: {found['verdict']}\n")
    case = f"Adult, {TRIALS} trials"
    yield Row(case=case, contestant="gain on test", value=found["gain"]["test"] * 100, unit="AUC points")
    said = float(found["verdict"].startswith("there is little to gain"))
    yield Row(case=case, contestant="says that there is little to gain", value=said, unit="yes", goal=">= 1")


class MariaDB:
    """A server that is stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={folder}"]
        subprocess.run([*install, "--auth-root-authentication-method=normal"], check=True, capture_output=True)
        self.process = self.started()
        user = "s@'127.0.0.1'"
        made = f"CREATE DATABASE search; CREATE USER {user} IDENTIFIED BY 'pw'; GRANT ALL ON search.* TO {user}"
        subprocess.run(["mariadb", "--no-defaults", f"--socket={folder}/s", "-uroot", "-e", made], check=True)

    def started(self) -> subprocess.Popen[bytes]:
        import socket

        command = ["mariadbd", "--no-defaults", "--user=root", f"--datadir={self.folder}", f"--socket={self.folder}/s"]
        options = [f"--port={self.port}", "--bind-address=127.0.0.1", "--skip-name-resolve"]
        self.process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self.process
            time.sleep(0.1)
        raise AssertionError("MariaDB does not start")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()

    @property
    def address(self) -> str:
        return f"mysql+pymysql://s@127.0.0.1:{self.port}/search"


def storage(home: Path) -> Iterator[Row]:
    """What a trial costs beside its fit, and what is left of a search whose server and processes are killed."""
    if not shutil.which("mariadbd") or os.geteuid() != 0:
        sys.exit("bench-search needs mariadbd (apt-get install mariadb-server) and root, to run it")
    os.environ["FAIRLEAD_SEARCH_PASSWORD"] = "pw"
    server = MariaDB(home / "mariadb")
    try:
        for name, address in (("file", ""), ("MariaDB", server.address)):
            yield Row(
                case=f"a trial beside its fit, {name}, mean of 100",
                contestant="fairlead, TPE, 6 settings",
                value=beside(home / name, address),
                unit="ms",
                goal="<= 50",
            )
        yield from stopped(home, server)
    finally:
        server.stop()


def beside(home: Path, address: str) -> float:
    """Milliseconds from asking for a trial to telling it, without training and measuring."""
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
            began = time.perf_counter()
            one.run()
            spent.append(time.perf_counter() - began)
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
    return 1000 * spent[0] / 100


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


def plan(home: Path) -> Iterator[Row]:
    """Plans of six configurations beside the training on all rows, and whether the band held its quality."""
    off: dict[str, list[float]] = {"cpu_seconds": [], "memory_peak": []}
    held: list[bool] = []
    for at, (name, recipe, settings) in enumerate(SIX):
        config = recipe_config(get_task(name), recipe, settings)
        where = Endpoints(home=str(home / f"plan-{at}")).resolved()
        run = Run(run_id=f"{name}-{at}", task=name, recipe=recipe, config=as_document(config), endpoints=where)
        made = planning.made_plan(run, 120.0, silent)
        job = {"run": run.document(), "folder": str(home / f"whole-{at}"), "shares": [[1.0, 1]]}
        (home / "scratch").mkdir(exist_ok=True)
        data = planning._measured("prepare", job, home / "scratch")
        real = planning._measured(
            "fit",
            {
                "task": name,
                "config": dump_config(config.training_part()),
                "dataset": data["fits"][0]["dataset"],
                "folder": str(home / f"fit-{at}"),
                "metric": config.gate.primary,
            },
            home / "scratch",
        )
        rows = made["rows"]["train"]
        # What was trained is all training rows; the plan is for these and the validation rows.
        small = {**data, "rows": {**data["rows"], "valid": 0}}
        told = planning.forecast(small, made["fits"], config.gate.primary, True, made["corrected"])
        # Of the processor: what else runs on a shared machine is in the other seconds.
        cpu = amount([one["rows"] for one in made["fits"]], [one["cpu_seconds"] for one in made["fits"]], rows)
        told["train"]["cpu_seconds"] = cpu.as_dict()
        for key, values in off.items():
            values.append(100 * (told["train"][key]["likely"] / real[key] - 1))
        errors: dict[float, list[float]] = {}
        for fit in made["fits"]:
            errors.setdefault(round(fit["share"] * rows), []).append(1 - fit["value"])
        (band,) = learning_curve(errors, [rows])
        held.append(band.low <= 1 - real["value"] <= band.high)
        time_off, memory_off = (values[-1] for values in off.values())
        sys.stdout.write(
            f"{name} {recipe} {settings}: time {time_off:+.0f} %, memory {memory_off:+.0f} %, "
            f"{config.gate.primary} {real['value']:.4f} in {1 - band.high:.4f} to {1 - band.low:.4f}: {held[-1]}\n"
        )
    for key, said, most in (("cpu_seconds", "time", 30), ("memory_peak", "memory", 20)):
        worst = max(map(abs, off[key]))
        yield Row(case=f"plan of six, {said}", contestant="worst", value=worst, unit="%", goal=f"<= {most}")
        yield Row(case=f"plan of six, {said}", contestant="median", value=float(np.median(np.abs(off[key]))), unit="%")
    yield Row(case="quality in the 90 % band", contestant="of six", value=100 * float(np.mean(held)), unit="%")


def main() -> int:
    """Run the parts that are named, or all."""
    parts = {"smooth": smooth, "adult": adult, "storage": storage, "plan": plan}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-search-") as name:
        for part in sys.argv[1:] or [*parts]:
            home = Path(name) / part
            home.mkdir()
            rows += parts[part](home)
    return write("search", f"make bench-search {' '.join(sys.argv[1:])}".strip(), rows)


if __name__ == "__main__":
    sys.exit(main())
