"""Ranking: lists are counted by whether they are full, and observed by how different their items are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contracts.metric_names import LIST_DIVERSITY, SCORE_BUCKETS
from contracts.problems.ranking import MEASURES, SEPARATOR, Ranked
from services.problems.base import Count, Distribution, Series, Serving

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contracts.bundle import Golden
    from contracts.problems.ranking import RankingOutput

_LIST, EMPTY = "list", "(empty)"
_PLACES = 6


class RankingServing(Serving):
    """See `services.problems.base.Serving`; a decision is the list of items, a label the items that were taken."""

    def labels(self, output: RankingOutput) -> Sequence[str]:
        """A list with items, or one without."""
        return (_LIST, EMPTY)

    def distribution(self, output: RankingOutput, golden: Sequence[Golden]) -> Distribution:
        """Of the diversity of a list."""
        return Distribution(name=LIST_DIVERSITY, text="Mean distance of two items of a list.", edges=SCORE_BUCKETS)

    def count(self, answers: Any, decided: Sequence[list[str]], labels: Mapping[str, Count], observed: Series) -> None:
        """Each list, and the diversity of those that have one."""
        for one in answers:
            labels[_LIST if one.items else EMPTY].inc()
            if "diversity" in one.measures:
                observed.observe(one.measures["diversity"])

    def record(self, answers: Any, decided: Sequence[list[str]], row: int) -> dict[str, Any]:
        """Items, scores and propensities by their places, the measures, and the reason that most items have."""
        one: Ranked = answers[row]
        found: dict[str, Any] = {
            "items": list(one.items),
            "scores": [round(score, _PLACES) for score in one.scores],
            "propensity": list(one.propensity),
            **one.measures,
        }
        if one.team:
            found["team"] = list(one.team)
        if one.why:
            found["why"] = Counter(one.why).most_common(1)[0][0]
        return found

    def label_schema(self, output: RankingOutput) -> dict[str, Any]:
        """The items that were clicked, bought or watched; none of them need be in the list."""
        item = {"type": "string", "minLength": 1, "maxLength": 256}
        return {"type": "array", "items": item, "maxItems": 10 * output.longest}

    def label(self, output: RankingOutput, value: Any) -> list[str]:
        """Names of items, each once."""
        most = 10 * output.longest
        if type(value) is not list or len(value) > most or any(type(one) is not str or not one for one in value):
            raise ValueError(f"expected a list of at most {most} items, [] where none was taken")
        return list(dict.fromkeys(value))

    def label_of_text(self, output: RankingOutput, text: str) -> list[str]:
        """Items separated as in inputs."""
        return self.label(output, [part.strip() for part in text.split(SEPARATOR) if part.strip()])

    def is_right(self, recorded: Mapping[str, Any], label: Any, metrics: Mapping[str, float]) -> bool:
        """Whether an item of the list was taken."""
        return not set(recorded["items"]).isdisjoint(label)

    def parameters(self, output: RankingOutput) -> dict[str, Any]:
        """How long lists are, and how many items there are."""
        return output.model_dump()

    def summary(self, output: RankingOutput) -> str:
        """Items of the catalogue."""
        return f"a list of up to {output.longest} of {output.catalogue} items"

    def answers(self, output: RankingOutput, documents: Sequence[Mapping[str, Any]]) -> NDArray[np.object_]:
        """The lists."""
        import numpy as np

        found = np.empty(len(documents), dtype=object)
        for row, one in enumerate(documents):
            entries = one["items"]
            found[row] = Ranked(
                items=tuple(each["item"] for each in entries),
                scores=tuple(each["score"] for each in entries),
                why=tuple(each["why"] for each in entries),
                because=tuple(tuple(each["because"]) for each in entries),
                propensity=(1.0,) * len(entries),
                measures={name: one[name] for name in MEASURES if one.get(name) is not None},
                group=next((each["group"] for each in entries if each.get("group")), ""),
            )
        return found

    def measure(
        self,
        output: RankingOutput,
        decision: Any,
        answers: Sequence[Mapping[str, Any]],
        labels: Sequence[Sequence[str]],
    ) -> Callable[[Any], dict[str, float]]:
        """Of lists that were shown: how often an item was taken, and how far up.

        They have other names than those of an evaluation: people take from what they are shown.
        """
        import numpy as np

        firsts = [
            next((place for place, item in enumerate(one["items"], 1) if item in set(taken)), math.inf)
            for one, taken in zip(answers, labels, strict=True)
        ]
        first = np.array(firsts)

        def measure(weight: Any) -> dict[str, float]:
            w = np.ones(len(first)) if weight is None else np.asarray(weight)
            total = max(float(w.sum()), 1e-12)
            return {
                "taken": float(w @ np.isfinite(first)) / total,
                "taken_reciprocal_rank": float(w @ (1 / first)) / total,
            }

        return measure

    def watched(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Novelty, diversity, calibration and long tail of a list, its length, and the reason that most items have.

        A bubble shows here: all four fall while people still click.
        """
        if "items" not in record:
            return {}
        numbers = {name: record.get(name) for name in MEASURES if name != "novelty"}
        return {"answer": record.get("novelty"), **numbers, "listed": len(record["items"]), "why": record.get("why")}


SERVING = RankingServing()
