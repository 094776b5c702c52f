"""Off-policy: a candidate must not be shown, by lists of the log that were left to chance, to earn fewer clicks."""

from __future__ import annotations

from contracts.bundle import Check
from pipelines.checks.base import Candidate, Finding

TABLE = "impressions.parquet"
_LISTS = 5_000  # the latest
_ENOUGH = 50.0  # lists without weights, that those with weights must be worth


class OffPolicy:
    """Judges by ``impressions.parquet`` of the data set, the test part, where places were left to chance."""

    name = "off_policy"
    order = 25

    def find(self, candidate: Candidate) -> Finding:
        """A verdict where the log can give one, and otherwise why it cannot."""
        if not (candidate.dataset / TABLE).exists():
            return Finding()
        import pandas as pd

        from contracts.engines import load_engine
        from pipelines.evaluation import scoring
        from pipelines.evaluation.off_policy import off_policy, replayed
        from pipelines.io.files import read_json

        rows = pd.read_parquet(candidate.dataset / TABLE)
        rows = rows[rows["part"] == "test"]
        if not (rows["propensity"] < 1).any():
            return Finding(
                notes=["off-policy: nothing in the logged lists was left to chance, so they judge no others"]
            )
        rows = rows[rows["list"].isin(rows["list"].drop_duplicates().iloc[-_LISTS:])].reset_index(drop=True)
        parts = [pd.read_parquet(candidate.dataset / f"{name}.parquet") for name in ("train", "valid")]
        before = pd.concat(parts).rename(columns={"item": "_", "label": "item"})
        bundle = scoring.provisional(candidate.folder, read_json(candidate.folder / "candidate.json"))
        found = off_policy(rows, replayed(load_engine(bundle, threads=1), rows, before))
        if found.effective < _ENOUGH:
            said = f"the log is worth {found.effective:.0f} lists of the candidate, {_ENOUGH:.0f} are needed"
            return Finding(notes=[f"off-policy: {said}"])
        limit = (1 - candidate.settings.champion_tolerance) * found.logged.value
        check = Check(
            metric="off_policy_clicks",
            rule="not below",
            value=round(found.dr.value, 6),
            limit=round(limit, 6),
            passed=found.difference.high >= limit - found.logged.value,
            against="logged lists",
        )
        spread = f"{found.difference.low:+.4f} to {found.difference.high:+.4f}"
        said = f"off-policy: {found.dr.value:.4f} clicks a list, logged {found.logged.value:.4f}, apart {spread}"
        return Finding(checks=[check], notes=[f"{said}; {found.effective:.0f} lists' worth"])


CHECK = OffPolicy()
