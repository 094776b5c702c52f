"""A recommender that is trained must beat the default retriever, for which nothing is trained."""

from __future__ import annotations

from contracts.bundle import Check
from pipelines.checks.base import Candidate, Finding


class DefaultRetriever:
    """By NDCG of the validation part, on which both have chosen their settings; nothing of other candidates."""

    name = "default_retriever"
    order = 25

    def find(self, candidate: Candidate) -> Finding:
        """Its NDCG must be above the default retriever's."""
        from pipelines.evaluation.list_measures import FLOOR, OWN
        from pipelines.io.files import read_json

        parameters = read_json(candidate.folder / "candidate.json").get("parameters", {})
        if FLOOR not in parameters:
            return Finding()
        own, floor = float(parameters[OWN]), float(parameters[FLOOR])
        passed, against = own > floor, "the default retriever"
        return Finding(checks=[Check(metric=OWN, rule="above", value=own, limit=floor, passed=passed, against=against)])


CHECK = DefaultRetriever()
