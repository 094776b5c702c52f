"""What a check of the gate is: it looks at a candidate and gives verdicts, each with its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from contracts.bundle import Check
from contracts.endpoints import Endpoints
from pipelines.task import GateConfig


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What is decided about.

    Attributes:
        task: its name.
        folder: what evaluate wrote, see `pipelines.steps.evaluate.evaluate`.
        dataset: folder with ``test.parquet``, whose rows evaluate has answered.
        evaluation: ``evaluation.json``.
        settings: the gate's part of the configuration.
    """

    task: str
    folder: Path
    dataset: Path
    evaluation: Mapping[str, Any]
    settings: GateConfig
    endpoints: Endpoints


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Verdicts; what is to be said beside them; the champion, where one was compared with."""

    checks: Sequence[Check] = ()
    notes: Sequence[str] = ()
    champion: str | None = None


class GateCheck(Protocol):
    """A check: a module has one as ``CHECK``.

    Attributes:
        order: checks with a lower number come first in the decision; ours have 10, 20 and 30.
    """

    name: str
    order: int

    def find(self, candidate: Candidate) -> Finding:
        """The verdicts on a candidate; none where the check has nothing to say."""
        ...


def lookup(metric: str, evaluation: Mapping[str, Any]) -> float | None:
    """A metric by name, of a slice as ``slice:value:metric``; None when it was not measured."""
    if metric in evaluation["metrics"]:
        return float(evaluation["metrics"][metric])
    for key, values in evaluation["slices"].items():
        name = metric.removeprefix(f"{key}:")
        if name != metric and name in values:
            return float(values[name])
    return None
