"""Watching models: what the log costs, what the monitor keeps up with, how soon it sees a change, how often it is
wrong, its peers on one window, and the console's page of all models.

``python -m tests.bench.monitoring [--seconds 60] [--seeds 20] [--days 365]``; peers are named by ``--peers``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from contracts.baseline import FILE, number
from contracts.bundle import write_bundle
from services.feedback.records import Prediction
from services.monitor.model_monitor import ModelMonitor
from services.monitor.panes import Panes
from services.monitor.reference import FOREIGN, Column, column_of
from services.monitor.rules import Rules
from services.monitor.tested import ColumnTests
from services.monitor.watch import Normal, VersionWatch
from tests.bench import report

INPUTS, RATE, PREDICTIONS = 30, 50, 2_000
BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
WINDOW, REFERENCE = 30_000, 8_000  # rows: ten minutes at 50/s
BASELINES = (2_000, REFERENCE)  # rows of what a year is compared with
NAMES = [f"x{at}" for at in range(INPUTS)]
OURS = "fairlead"


def _write_log(folder: Path, seconds: int) -> None:
    """A log of so many seconds of traffic, and the bundle of its model."""
    rng = np.random.default_rng(1)
    digest = _write_bundle(folder, rng)
    target = folder / "log" / "m" / f"{BEGIN:%Y-%m-%d}.1.jsonl"
    target.parent.mkdir(parents=True)
    about = {"model": "m", "version": "1", "digest": digest}
    with target.open("w") as stream:
        for second in range(seconds):
            moment = (BEGIN + timedelta(seconds=second)).isoformat(timespec="milliseconds")
            for at, row in enumerate(rng.normal(size=(PREDICTIONS, INPUTS)).round(6).tolist()):
                document = {"id": f"{second * PREDICTIONS + at:032x}", "time": moment, **about, "value": row[0]}
                stream.write(json.dumps({**document, "inputs": dict(zip(NAMES, row, strict=True))}) + "\n")


def _write_bundle(folder: Path, rng: np.random.Generator) -> str:
    """The digest of a bundle with a baseline."""
    source = folder / "source"
    source.mkdir()
    columns = {name: number(rng.normal(size=REFERENCE)) for name in NAMES}
    scores = {"value": number(rng.normal(size=REFERENCE))}
    (source / FILE).write_text(json.dumps({"rows": REFERENCE, "inputs": columns, "scores": scores}))
    inputs = [{"name": name, "dtype": "float64"} for name in NAMES]
    about = {
        "code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": BEGIN.isoformat()
    }  # fmt: skip
    fields = {
        "name": "m",
        "task": "m",
        "recipe": "bench",
        "modality": "tabular",
        "engine": "lightgbm",
        "signature": {"inputs": inputs, "output": {"problem": "regression"}},
        "gate": {"passed": True, "checks": []},
        "lineage": about,
    }
    return write_bundle(source, folder / "bundles", fields).digest[:12]


def _keep_up(folder: Path) -> None:
    """Of a process of its own: read the whole log as the service does, and say what it took."""
    monitor = ModelMonitor(str(folder / "log"), str(folder / "bundles"), "m", Rules())
    start = time.process_time()
    found = monitor.look(BEGIN + timedelta(days=1))["versions"]["1"]
    took = time.process_time() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert len(found["inputs"]) == INPUTS + 1
    sys.stdout.write(json.dumps({"rows": found["rows"], "seconds": took, "mib": memory}) + "\n")


def throughput(seconds: int) -> list[report.Row]:
    """Records a second of one core, with reading, parsing, counting, testing and writing the state."""
    with tempfile.TemporaryDirectory() as folder:
        _write_log(Path(folder), seconds)
        argv = [sys.executable, "-m", "tests.bench.monitoring", "--keep-up", folder]
        found = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    rate = found["rows"] / found["seconds"]
    case = f"{INPUTS} inputs, one core"
    return [
        report.Row(case=case, contestant=OURS, value=rate, unit="predictions/s", goal=f">= {PREDICTIONS}"),
        report.Row(case="memory while it reads", contestant=OURS, value=found["mib"], unit="MiB", goal="<= 300"),
    ]


def seen_after(seed: int, rules: Rules, rate: int = RATE, shift: float = 0.5) -> float:
    """Seconds from a shift of one input by half a deviation to the look that sees it, by a clock of its own.

    The monitor looks every five seconds; records are in the log a quarter of a second after they are made.
    """
    rng = np.random.default_rng(seed)
    normal = Normal(columns={name: number(rng.normal(size=REFERENCE)) for name in NAMES}, rows=REFERENCE)
    watch, every, before = VersionWatch(normal, None, rules), 5, 60 * 60
    begin = BEGIN + timedelta(seconds=float(rng.uniform(0, 10)))
    for step in range(-before, 300, every):
        if step < -600 and step % 60:
            continue
        length = 60 if step < -600 else every
        values = rng.normal(size=(length * rate, INPUTS))
        if step >= 0:
            values[:, 0] += shift
        moments = [begin + timedelta(seconds=step + at / rate) for at in range(len(values))]
        watch.add([_record(when, row) for when, row in zip(moments, values.tolist(), strict=True)], 4e9)
        now = (begin + timedelta(seconds=step + every)).timestamp()
        if step >= 0 and NAMES[0] in watch.report(now)["drifted"]:
            return step + every + 0.25
    return 300.0


def _record(moment: datetime, row: list[float]) -> Prediction:
    return Prediction(
        id="", time=moment, model="m", version="1", digest="", answer={}, inputs=dict(zip(NAMES, row, strict=True)),
        entities={}, flags=(), latency_ms=None, schema=2,
    )  # fmt: skip


def false_alarms(
    days: float, reference: int, seed: int, rules: Rules, shift: float = 0.0, screened: bool = True
) -> int:
    """Alarms in traffic that does not change at 50/s; each input's reference is a sample, and so is off for ever.

    shift: of all inputs from the first look on, in deviations.
    """
    rng = np.random.default_rng(seed)
    columns = [column_of(name, number(rng.normal(size=reference))) for name in NAMES]
    tests = ColumnTests([one for one in columns if isinstance(one, Column)], reference, rules)
    shares = [_true_shares(one, shift) for one in tests.columns]
    rows, total = int(RATE * rules.pane_seconds), int(days * 86_400 / rules.pane_seconds)
    screen, looks, alarms, last = Screen(tests, reference, rows), Looks(tests), 0, -2
    for start in range(0, total, 1_000):
        drawn = np.concatenate([rng.multinomial(rows, each, size=1_000) for each in shares], axis=1)[: total - start]
        looks.add(drawn)
        for at in screen.suspects(drawn) if screened else range(len(drawn)):
            if looks.alarm(start + at):
                alarms += last != start + at - 1
                last = start + at
    return alarms


class Looks:
    """The real test at some of the looks at a log: counts of as many panes as it can remember are kept for it."""

    def __init__(self, tests: ColumnTests) -> None:
        self._tests, self._kept = tests, np.zeros((0, tests.bins), np.int16)
        self._memory = tests.rules.panes * 5 // 4  # the longest pane is a quarter of the horizon
        self._first, self._panes, self._next = 0, Panes(tests.bins, tests.rules.panes), 0

    def add(self, counts: Any) -> None:
        """The counts of the panes that follow."""
        kept = np.concatenate([self._kept, counts.astype(np.int16)])
        gone = max(0, len(kept) - self._memory - len(counts))
        self._kept, self._first = kept[gone:], self._first + gone

    def alarm(self, pane: int) -> bool:
        """Whether the monitor that looks at the end of this pane says that something has changed."""
        begin = max(pane - self._memory, 0)
        if self._next < begin:
            self._panes, self._next = Panes(self._tests.bins, self._tests.rules.panes), begin
        for at in range(self._next, pane + 1):
            self._panes.add(at, self._kept[at - self._first])
        self._next = pane + 1
        return bool(self._tests.test(self._panes).changed.any())


class Screen:
    """Finds the looks at which any window could show a large change; at all others the monitor says nothing.

    The PSI is convex in the shares of a window, which are the mean of those of its panes, half a row of each bin spread
    over them. So it is at most the mean of the panes' own, and only where the mean of three or more reaches the effect
    is there anything to test.
    """

    def __init__(self, tests: ColumnTests, reference: int, rows: int) -> None:
        assert not any(max(column.varies) for column in tests.columns)
        self._effect, self._starts = tests.rules.effect, tests.starts
        longest = tests.rules.panes * 5 // 4
        self._table = np.concatenate([_most(one.shares * reference, rows, longest) for one in tests.columns])
        self._sum = np.zeros((3, len(tests.columns)))  # of what was above the effect, at the last three looks
        self._least = np.zeros(len(tests.columns))

    def suspects(self, counts: Any) -> list[int]:
        """Positions of these looks among the panes that follow."""
        most = np.add.reduceat(self._table[np.arange(counts.shape[1]), counts], self._starts, axis=1)
        sums = np.vstack([self._sum, self._sum[-1] + np.cumsum(most - self._effect, axis=0)])
        least = np.minimum.accumulate(np.vstack([self._least, sums[: len(counts)]]), axis=0)[1:]
        self._sum, self._least = sums[-3:], least[-1]
        return np.flatnonzero((sums[3:] >= least).any(axis=1)).tolist()


def _most(reference: Any, rows: int, longest: int) -> Any:
    """For each bin and count in a pane: the most that it can add to the PSI of a window of 3 to `longest` panes."""
    counts, empty = np.arange(rows + 1), reference == 0
    found = np.full((len(reference), rows + 1), -np.inf)
    for added in (np.where(empty, 0.0, 0.5), np.where(empty & (np.arange(len(empty)) != FOREIGN), 0.0, 0.5)):
        then = (reference + added) / (reference + added).sum()
        for part in (added / 3, added / longest):
            now = (counts + part[:, None]) / (rows + part.sum())
            terms = (now - then[:, None]) * np.log(np.maximum(now, 1e-300) / np.maximum(then[:, None], 1e-300))
            found = np.maximum(found, np.where(added[:, None] > 0, terms, 0.0))
    return found


def _true_shares(column: Column, shift: float) -> Any:
    """The shares that a normal distribution about `shift` has in the bins of a column."""
    at = [NormalDist(shift).cdf(edge) for edge in column.edges]
    return np.array([0.0, at[0] + 1 - at[-1], 0.0, 0.0, *np.diff(at)])


def peers(folder: Path) -> list[report.Row]:
    """CPU time and memory to compare a window of `WINDOW` rows with a reference, in a process each, imports apart."""
    rows = [_peer(OURS, sys.executable, "tests.bench.peers.use_monitor")]
    for name in ("evidently", "nannyml"):
        python = folder / name / "bin" / "python"
        if python.exists():
            rows.append(_peer(name, str(python), f"tests.bench.peers.use_{name}"))
    return [row for pair in rows for row in pair]


def _peer(name: str, python: str, module: str) -> list[report.Row]:
    sizes = [str(size) for size in (WINDOW, REFERENCE, INPUTS)]
    done = subprocess.run([python, "-m", module, *sizes], capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(f"{name} is left out: {done.stderr.strip().splitlines()[-1:]}\n")
        return []
    found = json.loads(done.stdout.strip().splitlines()[-1])
    case = f"a window of {WINDOW:,} rows x {INPUTS} inputs"
    return [
        report.Row(case=case, contestant=name, value=found["seconds"], unit="s of CPU"),
        report.Row(case=f"{case}, memory", contestant=name, value=found["mib"], unit="MiB"),
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.bench.monitoring", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="of traffic that is read")
    parser.add_argument("--seeds", type=int, default=20, help="shifts that are to be seen")
    parser.add_argument("--rounds", type=int, default=9, help="pairs of seconds with and without the log")
    parser.add_argument("--days", type=float, default=365, help="of traffic without a change")
    parser.add_argument("--peers", type=Path, default=Path("build") / "peers")
    parser.add_argument("--keep-up", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.keep_up:
        _keep_up(options.keep_up)
        return 0
    # First what measures memory: a child's peak begins with the size of the process that starts it.
    rules, rows = Rules(), [*throughput(options.seconds), *peers(options.peers)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        seen = list(pool.map(partial(seen_after, rules=rules), range(options.seeds)))
    case = f"half a deviation at {RATE}/s, seen after, worst of {options.seeds}"
    rows.append(report.Row(case=case, contestant=OURS, value=max(seen), unit="s", goal="<= 60"))
    from tests.bench import console, log_cost

    rows += [*log_cost.records(), *log_cost.requests(options.rounds), *console.pages(100)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # both years at once
        count = partial(false_alarms, options.days, rules=rules)
        found = list(pool.map(count, BASELINES, BASELINES))
    for rows_of, alarms in zip(BASELINES, found, strict=True):
        case = f"false alarms, {options.days:g} days, {INPUTS} inputs, baseline of {rows_of:,} rows"
        value = alarms * 7 / options.days
        rows.append(report.Row(case=case, contestant=OURS, value=value, unit="a week", goal="<= 1"))
    command = " ".join(["python -m tests.bench.monitoring", *(arguments or sys.argv[1:])])
    return report.write("monitoring", command, rows)


if __name__ == "__main__":
    raise SystemExit(main())
