"""Privacy on Adult, a part of ``make bench-trust``: quality, time, the ledger beside another accountant, an attack."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from contracts.privacy_ledger import Release
from contracts.tabular_engine import matrix
from pipelines.evaluation import membership
from pipelines.evaluation.scoring import columns_of
from pipelines.training.boosting import Rows
from pipelines.training.loop import LoopConfig
from pipelines.training.mitigation import Mitigation
from pipelines.training.network import NetworkConfig, fit_network
from pipelines.training.privacy import PrivacyConfig, of_public_rows, spent
from tests.bench.report import Row

ACCOUNTING = Path("build") / "peers" / "accounting" / "bin" / "python"
# Both train for the same epochs; the plain one does not stop early, so that times can be compared.
NETWORK = NetworkConfig(
    training=LoopConfig(epochs=20, patience=20, batch_size=1024, learning_rate=0.01, average=0.95, class_weights=False)
)
CLIP, DELTA = 2.0, 1e-5
SHADOWS, POOL, SEED = 16, 2_000, 7
# Large for its rows, and trained for long: what it knows by heart is what an attack finds.
BY_HEART = NetworkConfig(
    hidden=(128,),
    training=LoopConfig(
        epochs=60, patience=60, batch_size=100, learning_rate=0.01, average=0.5, weight_decay=0.0, class_weights=False
    ),
)


def silent(*_: Any, **__: Any) -> None:
    """Progress that nobody looks at."""


def private(home: Path, files: Any) -> Iterator[Row]:
    """Networks at three epsilons beside a plain one. `files` is `tests.bench.trust.AdultData`."""
    spent([Release(noise=4.0, share=1.0, steps=1)], DELTA)  # imports are paid for once, and by neither
    releases = []
    for epsilon in (None, 3.0, 1.0):
        name = "plain" if epsilon is None else f"epsilon {epsilon:g}"
        asked = PrivacyConfig(epsilon=epsilon, clip=CLIP, delta=DELTA)
        with of_public_rows():
            found = files.measured(home / name.replace(" ", "-"), NETWORK, Mitigation(), asked)
        goal = ">= 0.891" if epsilon == 1.0 else ""
        yield Row(case="Adult, network, ROC AUC", contestant=name, value=found.area, unit="AUC", goal=goal)
        yield Row(case="Adult, network", contestant=name, value=found.accuracy, unit="% accuracy")
        yield Row(case="Adult, loss-threshold attack", contestant=name, value=found.attack["auc"], unit="AUC")
        if found.privacy:
            releases.append([Release(**one) for one in found.privacy["releases"]])
    yield Row(
        case="Adult, processor time over plain, median of 5 pairs",
        contestant="epsilon 1",
        value=float(np.median(list(_times(home, files)))),
        unit="times",
        goal="<= 3",
    )
    yield from _beside_another([*releases, [one for some in releases for one in some]])


def _times(home: Path, files: Any) -> Iterator[float]:
    """One after the other, so that other work on the machine slows both; without what is loaded the first time."""
    for at in range(5):
        seconds = []
        for epsilon in (None, 1.0):
            asked = PrivacyConfig(epsilon=epsilon, clip=CLIP, delta=DELTA)
            with of_public_rows():
                found = files.measured(home / f"times-{at}-{epsilon}", NETWORK, Mitigation(), asked)
            seconds.append(found.seconds)
        yield seconds[1] / seconds[0]


def likelihood_ratio(home: Path, files: Any) -> Iterator[Row]:
    """The attack that knows most: for each row, how models answer that have seen it, and that have not.

    N. Carlini et al.: Membership inference attacks from first principles, 2022, with `SHADOWS` models of random halves
    of `POOL` rows of Adult, and normal distributions of one width. The attacked model has seen another half.
    """
    import pandas as pd

    inputs = files.task.inputs(None)
    frame = pd.read_parquet(files.folder / "train.parquet").iloc[:POOL]
    x, y = matrix(inputs, columns_of(frame, inputs)), (frame["label"] == ">50K").to_numpy().astype(np.int64)
    sides = np.where(y == 1, 1.0, -1.0)
    rng = np.random.default_rng(SEED)
    halves = [rng.permutation(POOL) < POOL // 2 for _ in range(SHADOWS + 1)]
    for name, asked in (("plain", PrivacyConfig()), ("epsilon 1", PrivacyConfig(epsilon=1.0, clip=CLIP, delta=DELTA))):
        said = np.empty((SHADOWS + 1, POOL))
        for at, half in enumerate(halves):
            # All rows are held out, so that a model is asked about all.
            rows = Rows(x=x[half], y=y[half]), Rows(x=x, y=y)
            with of_public_rows():
                said[at] = sides * fit_network(rows, inputs, BY_HEART, asked, at, home / name / str(at), silent).raw
        attacked, shadows, seen = said[-1], said[:-1], np.array(halves[:-1])
        inside, outside = (
            np.where(mask, shadows, 0).sum(axis=0) / np.maximum(mask.sum(axis=0), 1) for mask in (seen, ~seen)
        )
        width = float(np.std(np.where(seen, shadows - inside, shadows - outside)))
        ratio = ((attacked - outside) ** 2 - (attacked - inside) ** 2) / (2 * width**2)
        members, others = -ratio[halves[-1]], -ratio[~halves[-1]]
        found = membership.attack(members, others, SEED)
        case = f"Adult, {POOL // 2} rows, likelihood-ratio attack"
        yield Row(case=case, contestant=name, value=found["auc"], unit="AUC")
        yield Row(case=f"{case} at 1 % false alarms", contestant=name, value=100 * found["found"], unit="% found")


def _beside_another(trainings: list[list[Release]]) -> Iterator[Row]:
    """What the ledger says of each training, and of all, against Google's accountant."""
    if not ACCOUNTING.exists():
        return
    asked = {"delta": DELTA, "releases": [[one.as_dict() for one in some] for some in trainings]}
    program = str(Path(__file__).parent / "peers" / "use_dp_accounting.py")
    done = subprocess.run([ACCOUNTING, program, json.dumps(asked)], check=True, capture_output=True, text=True)
    for at, other in enumerate(json.loads(done.stdout)):
        ours = spent(trainings[at], DELTA)
        name = "both trainings" if at == len(trainings) - 1 else f"epsilon {ours:.3g}"
        yield Row(case="Ledger", contestant=name, value=ours, unit="epsilon")
        yield Row(
            case="Ledger from Google's accountant",
            contestant=name,
            value=100 * abs(ours / other - 1),
            unit="%",
            goal="<= 1",
        )
