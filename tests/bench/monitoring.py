"""The monitor: what it keeps up with, how soon it sees a change, how often it is wrong, and its peers on one window.

``python -m tests.bench.monitoring [--seconds 60] [--seeds 20] [--days 365]``; peers are named by ``--peers``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from contracts.baseline import FILE, number
from contracts.bundle import write_bundle
from services.feedback.records import Prediction
from services.monitor.model_monitor import ModelMonitor
from services.monitor.panes import Panes
from services.monitor.reference import Column, column_of
from services.monitor.rules import Rules
from services.monitor.tested import ColumnTests
from services.monitor.watch import Normal, VersionWatch
from tests.bench import report

INPUTS, RATE, PREDICTIONS = 30, 50, 2_000
BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
WINDOW, REFERENCE = 30_000, 8_000  # rows: ten minutes at 50/s
WEEK = 7 * 86_400
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


def false_alarms(days: float, reference: int, seed: int, rules: Rules) -> float:
    """Alarms in a week of unchanged traffic at 50/s; each input's reference is a sample, and so is off for ever."""
    rng = np.random.default_rng(seed)
    columns = [column_of(name, number(rng.normal(size=reference))) for name in NAMES]
    tests = ColumnTests([one for one in columns if isinstance(one, Column)], reference, rules)
    shares = [_true_shares(one) for one in tests.columns]
    panes, alarms, alarmed = Panes(tests.bins, rules.panes), 0, False
    rows, total = int(RATE * rules.pane_seconds), int(days * 86_400 / rules.pane_seconds)
    for start in range(0, total, 1_000):
        drawn = np.concatenate([rng.multinomial(rows, each, size=1_000) for each in shares], axis=1)
        for at, counts in enumerate(drawn[: total - start]):
            panes.add(start + at, counts)
            now = bool(tests.test(panes).changed.any())
            alarms += now and not alarmed
            alarmed = now
    return alarms * WEEK / (total * rules.pane_seconds)


def _true_shares(column: Column) -> Any:
    """The shares that a standard normal distribution has in the bins of a column."""
    from statistics import NormalDist

    at = [NormalDist().cdf(edge) for edge in column.edges]
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
    parser.add_argument("--days", type=float, default=365, help="of traffic without a change")
    parser.add_argument("--peers", type=Path, default=Path("build") / "peers")
    parser.add_argument("--keep-up", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.keep_up:
        _keep_up(options.keep_up)
        return 0
    rules = Rules()
    seen = [seen_after(seed, rules) for seed in range(options.seeds)]
    case = f"half a deviation at {RATE}/s, seen after, worst of {options.seeds}"
    soon = report.Row(case=case, contestant=OURS, value=max(seen), unit="s", goal="<= 60")
    rows = [*throughput(options.seconds), soon]
    for reference in (2_000, REFERENCE):
        case = f"false alarms, {options.days:g} days, {INPUTS} inputs, baseline of {reference:,} rows"
        value = false_alarms(options.days, reference, reference, rules)
        rows.append(report.Row(case=case, contestant=OURS, value=value, unit="a week", goal="<= 1"))
    command = " ".join(["python -m tests.bench.monitoring", *(arguments or sys.argv[1:])])
    return report.write("monitoring", command, rows + peers(options.peers))


if __name__ == "__main__":
    raise SystemExit(main())
