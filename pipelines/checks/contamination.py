"""Contamination: test rows of a tuned model whose words stand in its training rows, ``gate.tuning.contaminated``."""

from __future__ import annotations

from contracts.bundle import Check
from pipelines.checks.base import Candidate, Finding


class Contamination:
    """Rows are apart by their prompt; this looks at runs of words, which a changed sign or name does not hide."""

    name = "contamination"
    order = 19

    def find(self, candidate: Candidate) -> Finding:
        """The verdict on a tuned model."""
        limit = candidate.settings.tuning.contaminated
        if limit is None or not candidate.evaluation.get("tuning"):
            return Finding()
        import pandas as pd

        from pipelines.evaluation.contamination import contaminated, row_texts

        parts = [pd.read_parquet(candidate.dataset / f"{name}.parquet") for name in ("train", "valid", "test")]
        train, valid, test = map(row_texts, parts)
        found = contaminated([*train, *valid], test)
        share = len(found) / max(1, len(test))
        check = Check(metric="contaminated", rule="at most", value=round(share, 4), limit=limit, passed=share <= limit)
        rows = ", ".join(str(parts[2]["id"].iloc[at]) for at in found[:5])
        note = f"test rows that are for the most part in the training rows, by runs of words: {rows}"
        return Finding(checks=[check], notes=[note] if found else [])


CHECK = Contamination()
