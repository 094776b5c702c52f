"""Answers from passages: those that a reader may see are found, judged and quoted.

Passages are found twice, by their terms (`contracts.lexical`) and by their vectors, and the two lists are joined by
reciprocal ranks (G. Cormack, C. Clarke, S. Büttcher: Reciprocal rank fusion outperforms Condorcet and individual rank
learning methods, 2009). A judge, a small network of a few measures of a question and a passage, says how probable it
is that the passage answers the question: it orders the best ones, and tells when none of them does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from contracts import orders
from contracts.cross_encoder import CrossEncoder, RerankerSpec
from contracts.document import Document
from contracts.lexical import K1, Lexical
from contracts.nearest import Nearest
from contracts.passages import joined, passages
from contracts.problems.answering import Answered, Citation, Passage
from contracts.retrieval import Indices, Mask, best
from contracts.search_terms import terms
from contracts.text_vectors import Vectors, VectorsSpec

FEATURES = (
    "coverage", "bm25", "cosine", "sentence", "quoted", "heading", "pairs", "unknown", "rarest", "meaning", "weakest",
)  # fmt: skip
_RANK = 60  # of reciprocal ranks, as in the paper
_WIDER = 4  # times as many are asked of an index of vectors as are wanted: some of them are forbidden
_KEPT = 4096  # passages in terms
_ADDS = 0.25  # of the question's weight, what a further sentence has to add


class JudgeSpec(Document):
    """A network with one hidden layer: sigmoid(output . tanh(hidden x + hidden_bias) + bias), x as in `FEATURES`.

    Attributes:
        hidden: shape (units, features).
    """

    hidden: list[list[float]] = Field(min_length=1)
    hidden_bias: list[float]
    output: list[float]
    bias: float

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if any(len(one) != len(FEATURES) for one in self.hidden):
            raise ValueError(f"the judge has not {len(FEATURES)} measures, which are: {', '.join(FEATURES)}")
        if not len(self.hidden) == len(self.hidden_bias) == len(self.output):
            raise ValueError("the judge's layers do not fit together")
        return self

    def chance(self, features: NDArray[np.float64]) -> float:
        """That a passage answers a question, from 0 to 1."""
        inside = np.tanh(np.asarray(self.hidden) @ features + np.asarray(self.hidden_bias))
        return float(1 / (1 + np.exp(-np.clip(inside @ np.asarray(self.output) + self.bias, -50, 50))))


class AnsweringSpec(Document):
    """The content of ``answers.json``.

    Attributes:
        k, longest: passages that come with an answer.
        pool: passages that each of the two searches gives.
        judged: of those, how many the judge looks at.
        rerank: ``learned``: the judge orders them; ``none``: reciprocal ranks do, and it only says whether there is an
            answer; ``onnx``: a cross-encoder does.
        threshold: of its probability, from which on there is an answer.
        means: of a term of questions, terms of answers, and how far each stands for it, from 0 to 1; learned from
            questions that were answered.
        sentences: of an answer, at most.
        max_characters: of a question; the rest is not read.
    """

    format: Literal[1] = 1
    k: int = Field(5, ge=1)
    longest: int = Field(50, ge=1)
    pool: int = Field(50, ge=1)
    judged: int = Field(12, ge=1)
    rerank: Literal["none", "learned", "onnx"] = "learned"
    reranker: RerankerSpec = RerankerSpec()
    judge: JudgeSpec
    threshold: float = Field(ge=0, le=1)
    means: dict[str, dict[str, float]] = Field({})
    sentences: int = Field(2, ge=1)
    max_characters: int = Field(2000, ge=1)
    vectors: VectorsSpec


class PassageStore(Protocol):
    """The passages of an index, by their places."""

    def __len__(self) -> int: ...

    def get(self, place: int) -> Passage:
        """One of them, with score 0."""
        ...


class VectorStore(Protocol):
    """Where vectors are searched, in the place of the bundle's own."""

    def search(self, vector: NDArray[np.float32], count: int, labels: Sequence[str]) -> Indices:
        """Places of at most `count` passages that whoever has one of these labels may see, the nearest first."""
        ...


@dataclass(frozen=True)
class Access:
    """Who may see which passage.

    Attributes:
        sets: the different sets of labels.  of: of each passage which of them it has, shape (passages,).
    """

    sets: Sequence[Sequence[str]]
    of: NDArray[np.int32]

    def allowed(self, labels: Sequence[str]) -> Mask:
        """The passages that have no label, or one of these; shape (passages,)."""
        given = set(labels)
        may = np.array([not one or not given.isdisjoint(one) for one in self.sets], dtype=bool)
        found: Mask = may[self.of]
        return found


@dataclass(frozen=True)
class Question:
    """A question as it is searched for.

    Attributes:
        weights: of each of its different terms.
    """

    text: str
    terms: tuple[str, ...]
    weights: NDArray[np.float64]
    vector: NDArray[np.float32] | None


@dataclass(frozen=True)
class Parsed:
    """A passage in terms.

    Attributes:
        sentences: that may be quoted: what orders somebody to answer otherwise is none.
        each: the terms of each of them.  heading: those of the headings.  pairs: those that stand together.
    """

    passage: Passage
    sentences: tuple[str, ...]
    each: tuple[frozenset[str], ...]
    heading: frozenset[str]
    pairs: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, passage: Passage) -> Parsed:
        """Of a passage as it is stored."""
        sentences = tuple(one for one in passages(passage.text, "sentence") if not orders.in_document(one))
        order = terms(passage.text)
        return cls(
            passage,
            sentences,
            tuple(frozenset(terms(one)) for one in sentences),
            frozenset(terms(f"{passage.title} {passage.section}")),
            frozenset(pairwise(order)),
        )


@dataclass(frozen=True)
class Candidate:
    """A passage that may answer a question, and what the judge knows of the two."""

    place: int
    parsed: Parsed
    features: NDArray[np.float64]

    @property
    def passage(self) -> Passage:
        """As it is stored."""
        return self.parsed.passage


@dataclass(frozen=True)
class Answerer:
    """Answers questions by an index.

    Attributes:
        vectors: of the passages, shape (passages, dimensions); None without any.
        encoder: of questions.  nearest: an index of `vectors`.  store: is searched in the place of both.
    """

    spec: AnsweringSpec
    store: PassageStore
    access: Access
    lexical: Lexical
    vectors: NDArray[Any] | None = None
    encoder: Vectors | None = None
    nearest: Nearest | None = field(default=None, kw_only=True)
    elsewhere: VectorStore | None = field(default=None, kw_only=True)
    reranker: CrossEncoder | None = field(default=None, kw_only=True)
    _read: dict[int, Parsed] = field(default_factory=dict, kw_only=True, compare=False, repr=False)

    def answer(self, text: str, labels: Sequence[str] = (), k: int | None = None) -> Answered:
        """The answer for a reader with these labels, with at most `k` passages."""
        question = self.question(text)
        found = self.candidates(question, labels)
        chances = [self.spec.judge.chance(one.features) for one in found]
        order = self.order(question, found, chances)
        size = min(self.spec.k if k is None else k, self.spec.longest)
        shown = [replace(found[at].passage, score=round(chances[at], 9)) for at in order]
        if len(shown) < size:
            known = {one.place for one in found}
            rest = [place for place in self.ranked(question, labels)[0] if int(place) not in known]
            shown += [self.store.get(int(place)) for place in rest[: size - len(shown)]]
        said = self._said(question, [found[at] for at in order], [chances[at] for at in order])
        confidence = round(max([chances[at] for at in order[:1]], default=0.0), 9)
        cited = [place for place, _ in said]
        size = max(size, max(cited, default=-1) + 1)
        return Answered(
            text=joined([quote for _, quote in said], "sentence"),
            confidence=confidence,
            citations=tuple(Citation(place, quote) for place, quote in said),
            passages=tuple(shown[:size]),
        )

    def order(self, question: Question, found: Sequence[Candidate], chances: Sequence[float]) -> list[int]:
        """Places of candidates, the best first; chances: of the judge."""
        values = chances
        if self.spec.rerank == "none":
            return list(range(len(found)))
        if self.spec.rerank == "onnx" and self.reranker is not None:
            values = self.reranker.scores(question.text, [one.passage.text for one in found]).tolist()
        return sorted(range(len(found)), key=lambda at: (-values[at], at))

    def question(self, text: str) -> Question:
        """What is searched for."""
        text = text[: self.spec.max_characters].encode("utf-8", "replace").decode("utf-8")
        found = tuple(dict.fromkeys(terms(text)))
        weights = np.array([self.lexical.idf(term) for term in found], dtype=np.float64)
        vector = self.encoder.of([text])[0] if self.encoder is not None and text.strip() else None
        return Question(text, found, weights, vector)

    def ranked(self, question: Question, labels: Sequence[str]) -> tuple[Indices, NDArray[np.float32]]:
        """Places of passages by reciprocal ranks, the best first, and the scores of all passages by terms."""
        allowed = self.access.allowed(labels)
        scores = self.lexical.scores(question.terms)
        lists = [best(scores, allowed, self.spec.pool), self._near(question, allowed, labels)]
        places = np.concatenate(lists)
        if not len(places):
            return places, scores
        points = np.concatenate([1.0 / (_RANK + 1 + np.arange(len(one))) for one in lists])
        unique, inverse = np.unique(places, return_inverse=True)
        sums = np.bincount(inverse, weights=points)
        order = np.lexsort((unique, -scores[unique], -np.round(sums, 12)))
        found: Indices = unique[order]
        return found[allowed[found]], scores

    def _near(self, question: Question, allowed: Mask, labels: Sequence[str]) -> Indices:
        vector, count = question.vector, self.spec.pool
        if vector is None or self.vectors is None or not vector.any():
            return np.zeros(0, dtype=np.int64)
        if self.elsewhere is not None:
            near = self.elsewhere.search(vector, count, labels)
            return near[allowed[near]]
        if self.nearest is not None:
            near = self.nearest.search(vector, _WIDER * count)
            near = near[allowed[near]][:count]
            if len(near) == min(count, int(allowed.sum())):
                return near
        return best(self.vectors @ vector, allowed, count)

    def candidates(self, question: Question, labels: Sequence[str]) -> list[Candidate]:
        """The passages that the judge looks at, in the order of reciprocal ranks."""
        places, scores = self.ranked(question, labels)
        places = places[: max(self.spec.judged, self.spec.k)]
        if not len(places) or not len(question.terms):
            return []
        total = max(float(question.weights.sum()), 1e-9)
        has = np.array([self._having(term, places) for term in question.terms])
        known = np.array([term in self.lexical.places or term in self.spec.means for term in question.terms])
        cosine = np.zeros(len(places))
        if question.vector is not None and self.vectors is not None:
            cosine = np.asarray(self.vectors[places] @ question.vector, dtype=np.float64)
        found = []
        for at, place in enumerate(places.tolist()):
            parsed = self._parsed(place)
            measures = {
                "coverage": float(question.weights @ has[:, at]) / total,
                "bm25": float(scores[place]) / (total * (K1 + 1)),
                "cosine": float(cosine[at]),
                "unknown": float(question.weights @ ~known) / total,
                **self._near_text(question, parsed, total),
            }
            features = np.array([measures[name] for name in FEATURES], dtype=np.float64)
            found.append(Candidate(place, parsed, features))
        return found

    def _parsed(self, place: int) -> Parsed:
        """A passage in terms; some thousands are kept, as questions are about the same ones again and again."""
        found = self._read.get(place)
        if found is None:
            if len(self._read) >= _KEPT:
                self._read.clear()
            found = self._read[place] = Parsed.of(self.store.get(place))
        return found

    def _having(self, term: str, places: Indices) -> Mask:
        """Which of the passages have a term."""
        at = self.lexical.places.get(term)
        if at is None:
            return np.zeros(len(places), dtype=bool)
        indptr, indices = self.lexical.arrays["bm25.indptr"], self.lexical.arrays["bm25.indices"]
        part = indices[int(indptr[at]) : int(indptr[at + 1])]
        where = np.minimum(np.searchsorted(part, places), len(part) - 1)
        found: Mask = part[where] == places
        return found

    def _near_text(self, question: Question, parsed: Parsed, total: float) -> Mapping[str, float]:
        """What words of the question stand together: in one sentence, in the headings, and as pairs."""
        heading, each = parsed.heading, parsed.each
        alone = [self._share(question, one) for one in each]
        best_at = int(np.argmax(alone)) if alone else -1
        together = each[best_at] | heading if best_at >= 0 else heading
        # In one sentence, as far as its words mean what the question's do.
        soft = [self._meant(question, one | heading) for one in each]
        meant = max(soft, key=lambda one: float(question.weights @ one), default=np.zeros(len(question.terms)))
        telling = question.weights >= question.weights.max() / 2
        pairs, wanted = parsed.pairs, question.terms
        asked = list(pairwise(wanted))
        rarest = wanted[int(np.argmax(question.weights))]
        return {
            "sentence": self._share(question, together) if best_at >= 0 else 0.0,
            "quoted": max(alone, default=0.0),
            "heading": self._share(question, heading),
            "pairs": sum(one in pairs for one in asked) / max(1, len(asked)),
            "rarest": float(rarest in together),
            "meaning": float(question.weights @ meant) / total,
            "weakest": float(meant[telling].min()),
        }

    def _meant(self, question: Question, found: AbstractSet[str]) -> NDArray[np.float64]:
        """Of each term of the question, how far these terms say it: 1 where one is the same."""
        means = self.spec.means
        return np.array(
            [
                1.0
                if term in found
                else max((far for other, far in means.get(term, {}).items() if other in found), default=0.0)
                for term in question.terms
            ]
        )

    def _share(self, question: Question, found: AbstractSet[str]) -> float:
        """Of the question's weight, what these terms have of it."""
        mask = np.array([term in found for term in question.terms], dtype=bool)
        return float(question.weights @ mask) / max(float(question.weights.sum()), 1e-9)

    def _said(self, question: Question, found: Sequence[Candidate], chances: Sequence[float]) -> list[tuple[int, str]]:
        """Sentences that answer the question: of each the place of its passage, and its words."""
        said: list[tuple[int, str]] = []
        covered: set[str] = set()
        for at, one in enumerate(found):
            if len(said) >= self.spec.sentences or chances[at] < self.spec.threshold:
                break
            if not one.parsed.sentences or (said and one.passage.document != found[said[0][0]].passage.document):
                continue
            sentences, each = one.parsed.sentences, one.parsed.each
            values = self._values(question, one.parsed)
            order = sorted(range(len(sentences)), key=lambda place: (-values[place], place))
            if not said:
                said.append((at, sentences[order[0]]))
                covered |= each[order[0]] | one.parsed.heading
            for place in order:
                new = each[place] - covered
                if len(said) < self.spec.sentences and self._share(question, new) >= _ADDS:
                    said.append((at, sentences[place]))
                    covered |= new
        return said

    def _values(self, question: Question, parsed: Parsed) -> list[float]:
        """How well each sentence fits: the words that it has, and how near its vector is."""
        near: NDArray[Any] = np.zeros(len(parsed.sentences))
        if question.vector is not None and self.encoder is not None and len(parsed.sentences) > 1:
            near = self.encoder.of(parsed.sentences) @ question.vector
        total = max(float(question.weights.sum()), 1e-9)
        shares = [float(question.weights @ self._meant(question, one)) / total for one in parsed.each]
        return [round(share + float(cosine) / 2, 9) for share, cosine in zip(shares, near, strict=True)]
