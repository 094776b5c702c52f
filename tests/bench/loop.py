"""Time and memory of the whole loop: ``make bench-loop [ARGS="demo overhead simulator large joined commands fresh"]``.

``fresh`` clones the repository and runs ``make demo`` with installation; the others use the installed environment.
``joined`` reads the payments of FAIRLEAD_TEST_DATA.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil

from tests.bench.report import Row, write

ROOT = Path(__file__).resolve().parents[2]


def watch(argv: list[str], cwd: Path, env: Mapping[str, str]) -> tuple[float, float]:
    """Run a command to its end; seconds and peak GiB (proportional set size) of it and its children together."""
    start = time.perf_counter()
    process = subprocess.Popen(argv, cwd=cwd, env=dict(env), stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    peak, done = [0], threading.Event()

    def sample() -> None:
        while not done.wait(0.25):
            peak[0] = max(peak[0], _memory(process.pid))

    sampler = threading.Thread(target=sample)
    sampler.start()
    code = process.wait()
    seconds = time.perf_counter() - start
    done.set()
    sampler.join()
    if code:
        sys.exit(f"{' '.join(argv)} ended with {code}")
    return seconds, peak[0] / 2**30


def _memory(pid: int) -> int:
    total = 0
    try:
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            try:
                total += process.memory_full_info().pss
            except psutil.Error:
                continue
    except psutil.Error:
        return total
    return total


def demo(folder: Path) -> Iterator[Row]:
    """The demo once installed, first with nothing cached, then again."""
    env = {**os.environ, "FAIRLEAD_HOME": str(folder / "home")}
    command = [str(Path(sys.executable).with_name("fairlead")), "demo"]
    seconds, memory = watch(command, folder, env)
    yield Row(case="demo, installed", contestant="fairlead", value=seconds, unit="s", goal="<= 60")
    yield Row(case="demo, peak memory", contestant="fairlead", value=memory, unit="GiB", goal="<= 2")
    again, _ = watch(command, folder, env)
    yield Row(case="demo, second run (cached)", contestant="fairlead", value=again, unit="s")


def fresh(folder: Path) -> Iterator[Row]:
    """A clone with no environment to the end of the demo; what the network gives is part of the number."""
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    env = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "FAIRLEAD_HOME")}
    env["PATH"] = os.pathsep.join(p for p in env["PATH"].split(os.pathsep) if ".venv" not in p)
    seconds, _ = watch(["make", "demo"], clone, env)
    shutil.rmtree(clone)
    yield Row(case="fresh clone to the end of make demo", contestant="fairlead", value=seconds, unit="s", goal="<= 360")


def overhead(folder: Path) -> Iterator[Row]:
    """What the local runner adds to a step: the run's time less what its steps took, over the number of steps.

    What a step imports is the step's own time: each is a process of its own, and would import it in any other too.
    """
    from contracts.endpoints import Endpoints
    from pipelines.run import Run

    ends = Endpoints(home=str(folder / "overhead")).resolved()
    added: list[float] = []
    for number in range(3):
        run_id = f"bench{number}"
        asked = Run(run_id=run_id, task="news", nonce=run_id, endpoints=ends).model_dump_json()
        argv = [sys.executable, "-m", "pipelines", "run", asked]
        lines = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=True).stdout.splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        at = {event["event"]: event["time"] for event in events}
        steps = [event["seconds"] for event in events if event["event"] == "step_finished"]
        added.append((at["run_finished"] - at["run_started"] - sum(steps)) / len(steps))
    yield Row(
        case="local runner, added to a step (median of three runs)",
        contestant="fairlead (kfp.local)",
        value=statistics.median(added),
        unit="s",
        goal="<= 0.15",
    )


def simulator(folder: Path) -> Iterator[Row]:
    """Payments simulated in 10 s, by the task's own generator on one core."""
    from pipelines.tasks import get_task, recipe_config

    task = get_task("fraud")
    settings = recipe_config(
        task, None, {"simulator.customers": 10_000, "simulator.terminals": 10_000, "simulator.days": 120}
    )
    start = time.perf_counter()
    rows = sum(table.num_rows for table in task.default_source(settings))
    rate = rows / (time.perf_counter() - start) * 10
    yield Row(case="payments simulated in 10 s", contestant="fairlead", value=rate, unit="payments", goal=">= 1000000")


_STEPS = """
import json, pathlib, sys
from tests.chain import Chain
home, source, recipe, overrides, last = sys.argv[1:]
options = {"recipe": recipe, "source": source, "overrides": json.loads(overrides)}
chain = Chain(task="fraud", home=pathlib.Path(home), apart=True, **options)
chain.dataset(last)
"""


def _steps(folder: Path, source: str, recipe: str, overrides: Mapping[str, object], last: str) -> tuple[float, float]:
    """Seconds and peak GiB of the steps from `source` up to `last`, each in a process of its own, as in a run."""
    arguments = [str(folder), source, recipe, json.dumps(overrides), last]
    return watch([sys.executable, "-c", _STEPS, *arguments], ROOT, os.environ)


def joined(folder: Path) -> Iterator[Row]:
    """Four months of payments from CSV to a set in which every payment has its features: one process."""
    given = os.environ.get("FAIRLEAD_TEST_DATA", "")
    if not given:
        sys.exit("joined needs real data: set FAIRLEAD_TEST_DATA to the folder that holds fraud/")
    everything = {"split.train_start": "2018-04-01", "split.train_days": 108}
    source = str(Path(given) / "fraud")
    seconds, memory = _steps(folder / "joined", source, "handbook", everything, "build_dataset")
    case = "four months of CSV to a joined set, all 1.17 M rows"
    yield Row(case=case, contestant="fairlead", value=seconds, unit="s", goal="<= 60")
    yield Row(case=f"{case}, peak memory", contestant="fairlead", value=memory, unit="GiB", goal="<= 3")


def large(folder: Path) -> Iterator[Row]:
    """A CSV of 2 GiB through ingest and validate: memory must not grow with the file."""
    from pyarrow import csv

    from pipelines.tasks import get_task, recipe_config

    task = get_task("fraud")
    source, size = folder / "large.csv", 0
    with source.open("wb") as out:
        for seed in range(100):
            if size >= 2 << 30:
                break
            options = {"simulator.customers": 20_000, "simulator.days": 120, "seed": seed}
            for table in task.default_source(recipe_config(task, None, options)):
                names = [str(row) for row in range(size, size + table.num_rows)]
                table = table.set_column(table.schema.get_field_index("transaction_id"), "transaction_id", [names])
                csv.write_csv(table, out, csv.WriteOptions(include_header=size == 0))
                size = out.tell()
    for last in ("ingest", "validate"):
        seconds, memory = _steps(folder / f"large-{last}", str(source), "lightgbm", {}, last)
        yield Row(case=f"CSV of 2 GiB to the end of {last}", contestant="fairlead", value=seconds, unit="s")
        yield Row(case=f"CSV of 2 GiB, {last}, peak memory", contestant="fairlead", value=memory, unit="GiB")
        shutil.rmtree(folder / f"large-{last}")


def commands(folder: Path) -> Iterator[Row]:
    """What commands take that do little: scoring 200 rows and a million, help, and finding nothing (medians of 5)."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

    env = {**os.environ, "FAIRLEAD_HOME": str(folder / "commands")}
    fairlead = str(Path(sys.executable).with_name("fairlead"))
    watch([fairlead, "run", "fraud"], folder, env)
    source = next((folder / "commands" / "data" / "fraud").glob("*/part-*.parquet"))
    payments = parquet.read_table(source).drop_columns(["_row"])
    many = pa.concat_tables([payments] * (1_000_000 // payments.num_rows + 1)).slice(0, 1_000_000)
    for rows, goal in ((200, 3), (1_000_000, 60)):
        file = folder / f"score{rows}.csv"
        arrow_csv.write_csv(many.slice(0, rows), file)
        seconds = []
        for number in range(5 if rows == 200 else 1):
            out = str(folder / f"scored{rows}-{number}")
            seconds.append(watch([fairlead, "score", "fraud", "--source", str(file), "--out", out], folder, env)[0])
        case = f"fairlead score, {rows:,} rows of CSV"
        yield Row(case=case, contestant="fairlead", value=statistics.median(seconds), unit="s", goal=f"<= {goal}")
    nowhere = {**os.environ, "FAIRLEAD_HOME": str(folder / "nowhere")}
    for said, arguments, most in (
        ("--help", ["--help"], "<= 0.5"),
        ("models, of which there are none", ["models"], "<= 2"),
        ("runs, of which there are none", ["runs"], "<= 2"),
        ("score by a model that is not there", ["score", "fraud", "--source", str(file)], "<= 2"),
    ):
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            subprocess.run([fairlead, *arguments], cwd=folder, env=nowhere, capture_output=True, check=False)
            seconds.append(time.perf_counter() - began)
        yield Row(case=f"fairlead {said}", contestant="fairlead", value=statistics.median(seconds), unit="s", goal=most)


def main(names: list[str]) -> int:
    parts: dict[str, Callable[[Path], Iterator[Row]]] = {
        "simulator": simulator,
        "overhead": overhead,
        "demo": demo,
        "large": large,
        "joined": joined,
        "commands": commands,
        "fresh": fresh,
    }
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            row
            for name in names or [p for p in parts if p != "joined" or "FAIRLEAD_TEST_DATA" in os.environ]
            for row in parts[name](Path(folder))
        ]
    return write("loop", "make bench-loop", rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
