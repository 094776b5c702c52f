"""The index of a recommender: what it finds of an exact search, for the people of the test."""

from __future__ import annotations

from contracts.bundle import Check
from contracts.nearest import SPEC
from pipelines.checks.base import Candidate, Finding

_ASKED = 300


class IndexRecall:
    """Nothing of a model without an index; the limit is that of its recipe, ``index.recall``."""

    name = "index_recall"
    order = 25

    def find(self, candidate: Candidate) -> Finding:
        """The mean over people of the test, of as many candidates as a list is made of."""
        if not (candidate.folder / "model" / SPEC).exists():
            return Finding()
        import numpy as np
        import pandas as pd

        from contracts.engines.recommend import read_model
        from contracts.nearest import recall
        from contracts.problems.ranking import listed

        model, _, _ = read_model(candidate.folder / "model")
        assert model.nearest is not None
        place = {item: at for at, item in enumerate(model.items)}
        rows = pd.read_parquet(candidate.dataset / "test.parquet", columns=["items"])["items"]
        chosen = rows.iloc[np.linspace(0, len(rows) - 1, min(len(rows), _ASKED)).astype(int)]
        histories = [[place[item] for item in listed(text) if item in place] for text in chosen]
        asked = [model.asked(codes) for codes in histories if codes]
        value = recall(model.nearest, model.arrays["factors"], asked, model.listed_from)
        least = model.nearest.spec.least
        check = Check(metric="index_recall", rule="at least", value=value, limit=least, passed=value >= least)
        return Finding(checks=[check])


CHECK = IndexRecall()
