"""Evaluation: what a suite must show of a model that writes, ``gate.suite``, and not less than the champion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.bundle import Bundle, Check
from pipelines.checks.base import Candidate, Finding


class SuiteEvaluation:
    """The candidate's answers are those of the step evaluate; a champion that was not asked this suite is asked now."""

    name = "evaluation"
    order = 28

    def find(self, candidate: Candidate) -> Finding:
        """A verdict on each minimum, and on the score beside the champion's on the same items."""
        gate, told = candidate.settings.suite, candidate.evaluation.get("suite")
        if not gate.name:
            return Finding()
        metrics = told["metrics"] if told else {}
        checks = []
        for metric, limit in gate.minimum.items():
            value = metrics.get(metric)
            passed = value is not None and value >= limit
            name = f"suite:{gate.name}:{metric}"
            checks.append(Check(metric=name, rule="at least", value=value, limit=limit, passed=passed))
        if not told:
            return Finding(checks=checks, notes=[f"gate.suite: the candidate was not asked suite {gate.name}"])
        from pipelines.checks.champion import find_champion

        found = find_champion(candidate.task, candidate.endpoints)
        if found is None:
            return Finding(checks=checks)
        compared, notes = _compared(candidate, told, *found)
        if (bits := told.get("bits_per_byte")) is not None:
            notes = [*notes, f"suite {gate.name}: {bits:.3f} bits per byte of its texts"]
        return Finding(checks=[*checks, *([compared] if compared else [])], notes=notes, champion=found[0])


def _compared(
    candidate: Candidate, told: Mapping[str, Any], name: str, bundle: Bundle
) -> tuple[Check | None, list[str]]:
    """The comparison with the champion, or why there is none."""
    import numpy as np

    from pipelines.evaluation.comparison import Pair, check_pair
    from pipelines.evaluation.measures import paired_bootstrap
    from pipelines.suites.scores import mean_of_tasks

    gate = candidate.settings.suite
    if bundle.document.signature.output.problem != "generation":
        return None, [f"champion {name} is not compared by suite {gate.name}: it does not write"]
    kept = (bundle.read_json("evaluation.json") or {}).get("suite")
    if not kept or kept["suite"]["version"] != told["suite"]["version"]:
        kept = _asked(bundle, candidate)
    rows, theirs = told["rows"], {row["id"]: row["value"] for row in kept["rows"]}
    tasks = np.array([row["task"] for row in rows])
    ours = mean_of_tasks(np.array([row["value"] for row in rows]), tasks)
    its = mean_of_tasks(np.array([theirs[row["id"]] for row in rows]), tasks)
    interval = paired_bootstrap(ours, its, "score", np.arange(len(rows)), 0) if len(rows) > 1 else None
    pair = Pair(ours(None)["score"], its(None)["score"], interval, len(rows), 0)
    return check_pair(pair, name, f"suite:{gate.name}:score", candidate.settings, True), []


def _asked(bundle: Bundle, candidate: Candidate) -> dict[str, Any]:
    """The champion's answers to the candidate's suite."""
    from contracts.engines import load_engine
    from pipelines.io import events
    from pipelines.suites.in_run import measure

    engine = load_engine(bundle, threads=1)
    return measure(engine, bundle.document, candidate.settings.suite, events.progress("gate"))


CHECK = SuiteEvaluation()
