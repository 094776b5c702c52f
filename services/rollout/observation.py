"""What is seen of the versions that share a model's traffic: counters of each one, read from its own metrics."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import Field

from contracts import metric_names as names
from contracts.document import Document

_LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_REFUSED = frozenset({"400", "413", "415", "422"})
_HISTOGRAMS = (names.SCORE, names.VALUE, names.ANSWER_WORDS, names.LIST_DIVERSITY, names.OBJECTS)
_OBSERVED = tuple(f"{name}_bucket" for name in _HISTOGRAMS)
# Asked by machines that look after the server, or by people who read; their answers say nothing about a version.
_UNJUDGED = frozenset(
    {"/metrics", "/startupz", "/", "/docs", "/openapi.json", "/docs.json", "/assets/{file}", "/v2", "/feedback"}
)


class Counts(Document):
    """Counters of one version since its process began; `unreached` are requests that ended before they got to it."""

    requests: float = 0
    errors: float = 0
    refusals: float = 0
    unreached: float = 0
    seconds: float = 0
    predictions: float = 0
    flagged: float = 0
    labelled: float = 0
    wrong: float = 0
    drafted: float = 0
    lost: float = 0
    truths: dict[str, float] = Field({}, description="labelled predictions by what is true, all that are known")
    misses: dict[str, float] = Field({}, description="those of `truths` that were answered wrongly")
    latency: dict[str, float] = Field({}, description="requests at most as slow as each edge")
    labels: dict[str, float] = Field({}, description="predictions by label")
    scores: dict[str, float] = Field({}, description="predictions with a score at most as large as each edge")

    def since(self, before: Counts) -> Counts:
        """What was counted after `before`; a counter that fell began again."""
        restarted = self.requests < before.requests

        def grown(name: str) -> float:
            new, old = float(getattr(self, name)), float(getattr(before, name))
            if name in _OF_LABELS:  # these are read anew each time, and corrections make them fall
                return max(0.0, new - old)
            return new if new < old or (restarted and name != "unreached") else new - old

        def edges(name: str) -> dict[str, float]:
            new, old = getattr(self, name), getattr(before, name)
            return {key: count if restarted else max(0.0, count - old.get(key, 0)) for key, count in new.items()}

        made: dict[str, Any] = {name: grown(name) for name in _NUMBERS}
        made |= {name: edges(name) for name in _MAPPINGS} | {name: getattr(self, name) for name in _WHOLE}
        return Counts.model_construct(None, **made)

    def plus(self, other: Counts) -> Counts:
        """Both together."""
        made: dict[str, Any] = {name: getattr(self, name) + getattr(other, name) for name in _NUMBERS}
        for name in _MAPPINGS:
            one, two = getattr(self, name), getattr(other, name)
            made[name] = {key: one.get(key, 0) + two.get(key, 0) for key in {**one, **two}}
        made |= {name: getattr(other, name) or getattr(self, name) for name in _WHOLE}
        return Counts.model_construct(None, **made)


_NUMBERS = (
    "requests",
    "errors",
    "refusals",
    "unreached",
    "seconds",
    "predictions",
    "flagged",
    "labelled",
    "wrong",
    "drafted",
    "lost",
)
_OF_LABELS = ("labelled", "wrong", "drafted", "lost")
_MAPPINGS = ("latency", "labels", "scores")
_WHOLE = ("truths", "misses")  # not what was counted since, but all; the later ones are right


class Labelled(NamedTuple):
    """What labels say of one version's predictions, as `Counts` has it.

    drafted, lost: lists that two versions drafted and that had more clicks for one of them, and those where it was the
    other one. Each such list counts for one of the two, by its id, so that what is compared is independent.
    """

    labelled: float
    wrong: float
    truths: dict[str, float]
    misses: dict[str, float]
    drafted: float = 0
    lost: float = 0


NO_LABELS = Labelled(0, 0, {}, {})


class Seen(Document):
    """One version: whether it takes traffic, and its counters, None where its metrics could not be read."""

    ready: bool
    counts: Counts | None = None
    note: str = Field("", description="why it is not ready, or not seen")
    ended: str = Field("", description="how its process ended by itself")


class Observation(Document):
    """All that a decision is made from."""

    champion: Seen
    candidate: Seen | None = None
    gone: str = Field("", description="why the champion cannot come back")


def samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Name, labels and value of each line of a Prometheus exposition."""
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if found := _LINE.match(line):
            yield found[1], dict(_LABEL.findall(found[2] or "")), float(found[3])


def read_counts(text: str, unreached: float = 0.0) -> Counts:
    """The counters in the metrics of a model server."""
    counts: dict[str, Any] = dict.fromkeys(_NUMBERS, 0)
    latency: dict[str, float] = {}
    labels: dict[str, float] = {}
    scores: dict[str, float] = {}
    for name, tags, value in samples(text):
        if name == names.REQUESTS and _is_judged(tags):
            counts["requests"] += value
            counts["errors"] += value if tags["code"][0] == "5" or tags["code"] == "429" else 0
            counts["refusals"] += value if tags["code"] in _REFUSED else 0
        elif name == f"{names.REQUEST_SECONDS}_bucket" and _is_judged(tags):
            latency[tags["le"]] = latency.get(tags["le"], 0) + value
        elif name == f"{names.REQUEST_SECONDS}_sum" and _is_judged(tags):
            counts["seconds"] += value
        elif name == names.PREDICTIONS:
            counts["predictions"] += value
            labels[tags["label"]] = labels.get(tags["label"], 0) + value
        elif name in _OBSERVED:
            scores[tags["le"]] = scores.get(tags["le"], 0) + value
        elif name == names.FLAGGED:
            counts["flagged"] += value
    counts["unreached"] = unreached
    return Counts.model_construct(None, **counts, latency=latency, labels=labels, scores=scores)


def _is_judged(tags: Mapping[str, str]) -> bool:
    route = tags["route"]
    return route not in _UNJUDGED and route != names.UNMATCHED_ROUTE and not route.startswith("/v2/health")
