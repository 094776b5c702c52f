"""Privacy on Adult, a part of ``make bench-trust``: quality, time, the ledger beside another accountant, an attack."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contracts.privacy_ledger import Release
from pipelines.training.loop import LoopConfig
from pipelines.training.mitigation import Mitigation
from pipelines.training.network import NetworkConfig
from pipelines.training.privacy import PrivacyConfig, spent
from tests.bench.report import Row

ACCOUNTING = Path("build") / "peers" / "accounting" / "bin" / "python"
# Both train for the same epochs; the plain one does not stop early, so that times can be compared.
NETWORK = NetworkConfig(
    training=LoopConfig(epochs=20, patience=20, batch_size=1024, learning_rate=0.01, average=0.95, class_weights=False)
)
CLIP, DELTA = 2.0, 1e-5


def private(home: Path, files: Any) -> Iterator[Row]:
    """Networks at three epsilons beside a plain one. `files` is `tests.bench.trust.AdultData`."""
    spent([Release(noise=4.0, share=1.0, steps=1)], DELTA)  # imports are paid for once, and by neither
    releases, seconds = [], {}
    for epsilon in (None, 3.0, 1.0):
        name = "plain" if epsilon is None else f"epsilon {epsilon:g}"
        asked = PrivacyConfig(epsilon=epsilon, clip=CLIP, delta=DELTA)
        found = files.measured(home / name.replace(" ", "-"), NETWORK, Mitigation(), asked)
        seconds[name] = found.seconds
        goal = ">= 0.891" if epsilon == 1.0 else ""
        yield Row(case="Adult, network, ROC AUC", contestant=name, value=found.area, unit="AUC", goal=goal)
        yield Row(case="Adult, network", contestant=name, value=found.accuracy, unit="% accuracy")
        yield Row(case="Adult, loss-threshold attack", contestant=name, value=found.attack["auc"], unit="AUC")
        if found.privacy:
            releases.append([Release(**one) for one in found.privacy["releases"]])
    yield Row(
        case="Adult, processor time over plain",
        contestant="epsilon 1",
        value=seconds["epsilon 1"] / seconds["plain"],
        unit="times",
        goal="<= 3",
    )
    yield from _beside_another([*releases, [one for some in releases for one in some]])


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
