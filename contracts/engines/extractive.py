"""Texts made of passages of the input: its first ones, those that the others are most like, or those that score best.

The one file of ``model/`` is ``extract.json`` (`ExtractSpec`): an algorithm with its parameters, in numpy alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from contracts.bundle import Bundle
from contracts.document import Document
from contracts.engine import EngineOptions, EngineSpec, Reason, refused
from contracts.passages import Unit, joined, passages
from contracts.texts import join_fields, language, ngrams, words

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILE = "extract.json"
OCCLUSIONS = 64  # answers that one explanation may make
_RANKED = 300  # passages that are compared with each other: what comes later is not taken
_DAMPING, _ROUNDS, _PLACES = 0.85, 100, 9
_CUES, _PAIR = 3, 0.3  # words at an end of a passage that are a sign; the value of a pair of words


class ExtractSpec(Document):
    """The content of ``extract.json``.

    Attributes:
        method: ``lead`` takes the first passages, ``textrank`` the most central ones in the order of the text,
            ``scored`` those whose signs (`signs`) have the largest sum of weights, in the order of the text.
        passages: how many, at most.
        max_characters: a text is cut here before it is read, so that a huge one costs no more.
        weights: of ``scored``, by sign; one that is not there weighs nothing.
    """

    format: Literal[1] = 1
    method: Literal["lead", "textrank", "scored"]
    unit: Unit = "sentence"
    passages: int = Field(ge=1)
    max_characters: int = Field(ge=1)
    weights: Mapping[str, float] = Field({})


def extract(text: str, spec: ExtractSpec) -> str:
    """What `spec` takes of a text; "" of one that has no passage."""
    found = passages(text, spec.unit)
    if spec.method != "lead" and len(found) > spec.passages:
        found = found[:_RANKED]
        score = centrality(found) if spec.method == "textrank" else scores(found, spec.weights)
        chosen = sorted(sorted(range(len(found)), key=lambda at: (-score[at], at))[: spec.passages])
        found = [found[at] for at in chosen]
    return joined(found[: spec.passages], spec.unit)


def kept(answer: str, other: str) -> float:
    """The share of the words of `answer` that `other` has as well, each as often as it is there; 1 of no words."""
    said, there = Counter(words(answer)), Counter(words(other))
    return sum((said & there).values()) / said.total() if said else 1.0


def centrality(parts: Sequence[str]) -> list[float]:
    """How much each passage is like the others (R. Mihalcea, P. Tarau: TextRank, 2004); ties are exact."""
    terms = [_terms(part) for part in parts]
    number = {term: at for at, term in enumerate(sorted(set().union(*terms)))}
    has = np.zeros((len(parts), max(1, len(number))))
    for row, some in enumerate(terms):
        has[row, [number[term] for term in some]] = 1
    size = np.log(np.maximum(has.sum(axis=1), 1))
    like = (has @ has.T) / np.maximum(size[:, None] + size[None, :], 1e-9)
    like[size <= 0] = 0  # of one word, or none
    like[:, size <= 0] = 0
    np.fill_diagonal(like, 0)
    out = like / np.maximum(like.sum(axis=1, keepdims=True), 1e-12)
    score = np.ones(len(parts))
    for _ in range(_ROUNDS):
        score = (1 - _DAMPING) + _DAMPING * (score @ out)
    return [round(float(value), _PLACES) for value in score]


def scores(parts: Sequence[str], weights: Mapping[str, float]) -> list[float]:
    """Of each passage of a text the sum of the weights of its signs."""
    return [
        round(sum(value * weights[name] for name, value in found.items() if name in weights), _PLACES)
        for found in signs(parts)
    ]


def signs(parts: Sequence[str]) -> list[dict[str, float]]:
    """What tells whether a passage is taken, by name: its place, length and centrality, how much of it is said again in
    the text, its words at both ends, the words before it, and its pairs of words."""
    said, central, last = [words(part) for part in parts[:_RANKED]], centrality(parts[:_RANKED]), len(parts) - 1
    often = Counter(pair for tokens in said for pair in ngrams(tokens, 2))
    found = []
    for at, tokens in enumerate(said):
        pairs, before = ngrams(tokens, 2), said[at - 1] if at else []
        one = {
            f"place {min(at, 8)}": 1.0,
            f"place {min(at, 3)} of {min(last + 1, 12) // 3}": 1.0,
            f"length {min(len(tokens) // 4, 12)}": 1.0,
            "central": central[at],
            "said again": sum(often[pair] > 1 for pair in pairs) / max(1, len(pairs)),
        }
        if at == last:
            one["last"] = 1.0
        for size in range(1, min(_CUES, len(tokens)) + 1):
            one[f"begins {' '.join(tokens[:size])}"] = 1.0
            one[f"ends {' '.join(tokens[-size:])}"] = 1.0
        for size in range(min(_CUES, len(before)) + 1):
            one[f"after {' '.join(before[len(before) - size :])}"] = 1.0
        for pair in set(pairs):
            one[f"has {' '.join(pair)}"] = _PAIR
        found.append(one)
    return found


def _terms(part: str) -> set[str]:
    """Words; of a Chinese passage pairs of characters, which tell more than single ones."""
    found = words(part)
    return {"".join(pair) for pair in ngrams(found, 2)} if language(part) == "zh" else set(found)


class ExtractiveEngine:
    """See `contracts.engine.Engine`; the answer to a row does not depend on the others."""

    def __init__(self, bundle: Bundle) -> None:
        try:
            self._spec = ExtractSpec.model_validate_json((bundle.model_path / FILE).read_bytes())
        except (OSError, ValidationError) as err:
            raise refused(bundle, str(err)) from err
        self._inputs = [item.name for item in bundle.document.signature.inputs if item.dtype == "string"]

    def predict(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.object_]:
        """One text per row, of its fields joined."""
        rows = zip(*(columns[name] for name in self._inputs), strict=True)
        made = [extract(join_fields(fields, self._spec.max_characters), self._spec) for fields in rows]
        return np.array(made, dtype=object)

    def explain(self, columns: Mapping[str, NDArray[Any]], top: int) -> list[list[Reason]]:
        """What leaving a passage out takes from the answer: the share of its words that are gone.

        Of a long text passages are left out together, so that at most `OCCLUSIONS` answers are made of each.
        """
        rows = zip(*(columns[name] for name in self._inputs), strict=True)
        return [self._reasons(join_fields(fields, self._spec.max_characters), top) for fields in rows]

    def _reasons(self, text: str, top: int) -> list[Reason]:
        found, unit = passages(text, self._spec.unit)[:_RANKED], self._spec.unit
        step = max(1, -(-len(found) // OCCLUSIONS))
        whole = extract(text, self._spec)
        lost = []
        for start in range(0, len(found), step):
            # A line each, so that what stood apart is not read as one passage.
            rest = "\n".join([*found[:start], *found[start + step :]])
            lost.append(1 - kept(whole, extract(rest, self._spec)))
        return [
            Reason(
                feature=joined(found[at * step : (at + 1) * step], unit), value=None, contribution=round(lost[at], 6)
            )
            for at in sorted(range(len(lost)), key=lambda at: (-lost[at], at))[:top]
        ]


def load(bundle: Bundle, options: EngineOptions) -> ExtractiveEngine:
    """See `contracts.engines.load_engine`."""
    return ExtractiveEngine(bundle)


ENGINE = EngineSpec(name="extractive", modality="text", extra="text", batch_rows=256, load=load)
