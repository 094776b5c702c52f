"""A prediction log with one model, its bundle, and traffic by the second."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from contracts.baseline import category, number
from contracts.bundle import write_bundle
from services.monitor.model_monitor import ModelMonitor
from services.monitor.rules import Rules

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
RULES = Rules()
RNG = np.random.default_rng(7)
NORMAL = {"size": RNG.normal(size=4_000), "colour": RNG.choice(["red", "green", "blue"], 4_000, p=[0.5, 0.3, 0.2])}
SCORES = RNG.beta(2, 5, 4_000)


class Log:
    """A log of model ``m`` whose clock is `at`; its inputs are a number, a category and a text."""

    def __init__(self, root: Path, baseline: bool = True, note: Any = None, **changes: Any) -> None:
        self.folder, self.artifacts, self.at, self.count = root / "log", root / "bundles", NOON, 0
        self.monitors: list[ModelMonitor] = []
        source = root / "source"
        (source / "model").mkdir(parents=True)
        (source / "model" / "model.txt").write_text("trees")
        normal: dict[str, Any] = {
            "rows": 4_000,
            "inputs": {"size": number(NORMAL["size"]), "colour": category(list(NORMAL["colour"]))},
            "answer": {"answer": number(SCORES), "label": category(np.where(SCORES > 0.3, "yes", "no").tolist())},
        }
        normal["inputs"] |= {"note": note} if note else {}
        if baseline:
            (source / "baseline.json").write_text(json.dumps(normal))
        inputs = [
            {"name": "size", "dtype": "float64"},
            {"name": "colour", "dtype": "string", "categories": ["red", "green", "blue", "grey"]},
            {"name": "note", "dtype": "string"},
        ]
        fields: dict[str, Any] = {
            "name": "m",
            "task": "m",
            "recipe": "r",
            "modality": "tabular",
            "engine": "lightgbm",
            "signature": {"inputs": inputs, "output": {"problem": "classification", "classes": ["no", "yes"]}},
            "decision": {"positive": "yes", "threshold": 0.3, "false_positive_cost": 1, "false_negative_cost": 1},
            "gate": {"passed": True, "checks": []},
            "lineage": {"code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": "t"},
        }
        self.digest = write_bundle(source, self.artifacts, fields | changes).digest[:12]

    def write(self, seconds: int, rate: int = 50, shift: float = 0.0, file: str = "a", **given: Any) -> None:
        """Records of so many seconds; `given` replaces inputs."""
        lines, rows = [], seconds * rate
        drawn = zip(RNG.choice(NORMAL["size"], rows) + shift, RNG.choice(NORMAL["colour"], rows), strict=True)
        scores = RNG.choice(SCORES, rows).tolist()
        for at, (size, colour) in enumerate(drawn):
            self.count += 1
            score, moment = scores[at], self.at + timedelta(seconds=at / rate)
            inputs = {"size": float(size), "colour": str(colour), "note": {"chars": 9}, **given}
            document = {
                "id": f"{int(moment.timestamp() * 1_000):012x}{self.count:020x}",
                "time": moment.isoformat(timespec="milliseconds"),
                "model": "m",
                "version": "1",
                "digest": self.digest,
                "label": "yes" if score > 0.3 else "no",
                "score": score,
                "probabilities": [1 - score, score],
                "inputs": {name: value for name, value in inputs.items() if value is not ...},
            }
            lines.append(json.dumps(document))
        self.at += timedelta(seconds=seconds)
        path = self.folder / "m" / f"{NOON:%Y-%m-%d}.{file}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as stream:
            stream.write("".join(f"{line}\n" for line in lines))

    def now(self) -> None:
        """Go on a minute ago."""
        self.at = datetime.now(UTC) - timedelta(seconds=60)

    def monitor(self, rules: Rules = RULES) -> ModelMonitor:
        """A monitor that goes on where the last one ended."""
        for before in self.monitors:
            before.release()
        self.monitors = [self.another_monitor(rules)]
        return self.monitors[0]

    def another_monitor(self, rules: Rules = RULES) -> ModelMonitor:
        return ModelMonitor(str(self.folder), str(self.artifacts), "m", rules)

    def look(self, monitor: ModelMonitor, later: float = 0.0) -> dict[str, Any]:
        found: dict[str, Any] = monitor.look(self.at + timedelta(seconds=later))["versions"]["1"]
        return found
