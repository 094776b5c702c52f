"""Whether a model of texts is better than the first passages of the source: ``gate.tuning.above_passages``."""

from __future__ import annotations

from contracts.bundle import Check
from pipelines.checks.base import Candidate, Finding

_PASSAGES = (1, 2, 3)


class Passages:
    """Measured on the test rows; unit and number are chosen by the rows that the model has learned from."""

    name = "passages"
    order = 12

    def find(self, candidate: Candidate) -> Finding:
        """The verdict on a model that was learned of texts with references."""
        above = candidate.settings.tuning.above_passages
        if above is None:
            return Finding()
        import numpy as np
        import pandas as pd

        from contracts.engines.extractive import extract
        from pipelines.evaluation.generation import OVERLAP, sources
        from pipelines.evaluation.text_measures import measured
        from pipelines.training.extracts import UNITS, Texts, choose

        primary = candidate.settings.primary
        metric = primary if primary in OVERLAP else "rouge_l"
        train, valid, test = (
            pd.read_parquet(candidate.dataset / f"{name}.parquet") for name in ("train", "valid", "test")
        )
        texts = [Texts(sources=sources(rows), wanted=rows["label"].tolist()) for rows in (train, valid, test)]
        spec, _ = choose(texts[0] + texts[1], "lead", UNITS, _PASSAGES, 50_000)
        reached = [
            measured(extract(source, spec), wanted, source)[metric]
            for source, wanted in zip(texts[2].sources, texts[2].wanted, strict=True)
        ]
        limit, value = round(float(np.mean(reached)) + above, 4), float(candidate.evaluation["metrics"][metric])
        first = f"the first {spec.passages} {spec.unit}s" if spec.passages > 1 else f"the first {spec.unit}"
        check = Check(metric=metric, rule="at least", value=value, limit=limit, passed=value >= limit, against=first)
        note = f"{first} of the source reach more: take another recipe, such as lead or scored"
        return Finding(checks=[check], notes=[] if check.passed else [note])


CHECK = Passages()
