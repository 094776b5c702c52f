"""How ready a tagger is to say that there is a span: chosen by the validation rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from contracts.errors import PlatformError
from pipelines.settings import setting

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from contracts.token_hashes import WordList
    from pipelines.training.tagger import Texts

_STEP, _STEPS = 0.5, 16  # of the caution of one type, from that of all on
_ROUNDS = 3  # what a type gains, another one may lose


class Learned(NamedTuple):
    """What was trained. scores: of ids (rows, tokens, hashes) and lengths (rows,), shape (rows, tokens, tags).  moves:
    of one tag (row) behind another.  size, words, around: as in `contracts.token_hashes.tokenise`."""

    scores: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
    moves: NDArray[np.float64]
    size: int
    words: WordList | None
    around: int = 0


def f1_of(learned: Learned, data: Texts, kinds: Sequence[str]) -> float:
    """Of the spans of `data`, without caution."""
    return _beta_score(counts(learned, data, kinds, [(0.0, np.zeros(len(kinds)))])[0], 1.0)


def chosen(
    learned: Learned,
    data: Texts,
    kinds: Sequence[str],
    cautions: Sequence[float],
    beta: float,
    recall: Mapping[str, float],
) -> tuple[float, dict[str, float], dict[str, float]]:
    """The one of `cautions` with the best F-beta on `data`; those of types that have to reach a `recall` and do not
    with it; and what is reached with them.

    Raises:
        PlatformError: ``code="bad_config"``: a recall that cannot be reached, or of a type that there is not.
    """
    _check(recall, kinds)
    candidates, none = sorted(set(cautions)), np.zeros(len(kinds))
    found = dict(zip(candidates, counts(learned, data, kinds, [(one, none) for one in candidates]), strict=True))
    best = max(found, key=lambda each: (_beta_score(found[each], beta), -each))
    own, sums = none, found[best]
    places = {kind: kinds.index(kind) for kind in recall}
    for _ in range(_ROUNDS):
        for kind, at in places.items():
            if _recall(sums[at]) < recall[kind]:
                own = _raised(learned, data, kinds, best, own, at, recall[kind])
                (sums,) = counts(learned, data, kinds, [(best, own)])
    told = dict[str, float]()
    for name, some in {"": sums.sum(axis=0), **{f":{kind}": sums[at] for kind, at in places.items()}}.items():
        told |= {f"valid_recall{name}": round(_recall(some), 4), f"valid_precision{name}": round(_precision(some), 4)}
    return best, {kind: float(own[at]) for kind, at in places.items() if own[at]}, told


def _check(recall: Iterable[str], kinds: Sequence[str]) -> None:
    if unknown := sorted(set(recall).difference(kinds)):
        raise PlatformError(
            f"recall is asked for spans of type {unknown[0]!r}, which the training part has not",
            detail=f"it has {', '.join(kinds)}",
            fix=f"name one of these: {setting('recall', dict.fromkeys(kinds[:1], 0.95))}",
            code="bad_config",
        )


def _raised(
    learned: Learned, data: Texts, kinds: Sequence[str], common: float, own: NDArray[np.float64], at: int, aim: float
) -> NDArray[np.float64]:
    """`own` with the least caution of kind `at` by which its recall is `aim`."""
    here = np.arange(len(kinds)) == at
    more = [np.where(here, max(own[at], common) + _STEP * step, own) for step in range(1, _STEPS + 1)]
    reached = [_recall(sums[at]) for sums in counts(learned, data, kinds, [(common, one) for one in more])]
    if (most := max(reached)) < aim:
        less = max(0.01, math.floor(100 * most) / 100)
        raise PlatformError(
            f"recall.{kinds[at]} of {aim:g} is not reached on the validation rows: {most:.4f} at most",
            detail="what is left has other borders, or nothing that tells it from what is no span",
            fix=f"ask for less, {setting('recall', {kinds[at]: less})}, or give more labelled texts",
            code="bad_config",
        )
    return next(some for some, recall in zip(more, reached, strict=True) if recall >= aim)


def counts(
    learned: Learned, data: Texts, kinds: Sequence[str], cautions: Sequence[tuple[float, NDArray[np.float64]]]
) -> list[NDArray[np.int64]]:
    """How many spans of `data` are found, are said to be there, and are there, both borders right, shape (kinds, 3).

    Args:
        cautions: each is one for all kinds and those of each, see `contracts.tagging.spans`.
    """
    from contracts.tagging import spans
    from contracts.token_hashes import tokenise_all
    from pipelines.training.tagger import padded

    sums = np.zeros((len(cautions), len(kinds), 3), np.int64)
    at_of = {kind: at for at, kind in enumerate(kinds)}
    order = sorted(range(len(data.texts)), key=lambda at: len(data.texts[at]))
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        read = tokenise_all([data.texts[at] for at in rows], learned.size, learned.words, learned.around)
        ids, lengths, _ = padded([(one.ids, np.zeros(len(one.ids), np.int64)) for one in read])
        logits = learned.scores(ids, lengths)
        for place, (at, one) in enumerate(zip(rows, read, strict=True)):
            wanted, told = set(data.spans[at]), logits[place, : len(one.ids)]
            for number, (caution, own) in enumerate(cautions):
                given = {span[:3] for span in spans(told, one.places, kinds, learned.moves, caution, own)}
                for column, some in enumerate((given & wanted, given, wanted)):
                    for *_, kind in some:
                        sums[number, at_of[kind], column] += 1
    return list(sums)


def _beta_score(sums: NDArray[np.int64], beta: float) -> float:
    hit, said, there = sums.sum(axis=0).tolist()
    return float((1 + beta**2) * hit / max(1, said + beta**2 * there))


def _recall(sums: NDArray[np.int64]) -> float:
    return float(sums[0] / max(1, sums[2]))


def _precision(sums: NDArray[np.int64]) -> float:
    return float(sums[0] / max(1, sums[1]))
