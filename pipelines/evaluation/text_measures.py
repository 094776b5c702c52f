"""Measures of a text against a reference, of one row each; those of whole sets are in `corpus_measures`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from contracts.stems import stem
from contracts.texts import common, language, ngrams, repetition, words
from pipelines.evaluation.faithfulness import facts_kept, unsupported


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An answer and its reference in the tokens that are compared."""

    answer: Sequence[str]
    reference: Sequence[str]


def pair(answer: str, reference: str) -> Pair:
    """By stems of words; by characters, spaces aside, where the reference is Chinese."""
    if (language(reference) if reference.strip() else language(answer)) == "zh":
        return Pair(answer=characters(answer), reference=characters(reference))
    return Pair(answer=[stem(word) for word in words(answer)], reference=[stem(word) for word in words(reference)])


def characters(text: str) -> list[str]:
    """All but spaces, marks too, in small letters."""
    return [character for character in text.casefold() if not character.isspace()]


def rouge_n(found: Pair, size: int) -> float:
    """F1 of the n-grams that both have (C.-Y. Lin, 2004); 0 where one of them has none."""
    mine, theirs = (Counter(ngrams(tokens, size)) for tokens in (found.answer, found.reference))
    total = mine.total() + theirs.total()
    return 2 * (mine & theirs).total() / total if mine and theirs else 0.0


def rouge_l(found: Pair) -> float:
    """F1 of the longest common subsequence."""
    total = len(found.answer) + len(found.reference)
    return 2 * common(found.answer, found.reference) / total if found.answer and found.reference else 0.0


def token_f1(answer: str, reference: str) -> float:
    """F1 of the words that both have, as in SQuAD; 1 where both are empty."""
    mine, theirs = words(answer), words(reference)
    if not mine or not theirs:
        return float(mine == theirs)
    both = (Counter(mine) & Counter(theirs)).total()
    return 2 * both / (len(mine) + len(theirs))


@lru_cache(maxsize=1 << 14)
def measured(answer: str, reference: str, source: str) -> Mapping[str, float]:
    """All measures of one row, kept for the slices that it is in."""
    found, said, wanted = pair(answer, reference), words(answer), words(reference)
    beyond = unsupported(answer, source)
    return {
        "rouge_1": rouge_n(found, 1),
        "rouge_2": rouge_n(found, 2),
        "rouge_l": rouge_l(found),
        "token_f1": token_f1(answer, reference),
        "exact_match": float(" ".join(said) == " ".join(wanted)),
        "words": float(len(said)),
        "length_ratio": len(said) / len(wanted) if wanted else float("nan"),
        "repetition": repetition(said),
        "empty": float(not answer.strip()),
        "unsupported_numbers": float(bool(beyond.numbers)),
        "unsupported_names": float(bool(beyond.names)),
        "unsupported_quotes": float(bool(beyond.quotes)),
        "facts_kept": facts_kept(answer, source),
    }
