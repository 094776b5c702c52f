"""Language models of counts: what a neural one must be better than, and what it may have learned by heart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pipelines.training.language_model import Text

ORDERS, MOST = 5, 2_000_000  # tokens of a run, and of the training texts that are counted
RUN = 50  # characters that nobody writes twice by chance


def ngram_bits(train: Sequence[Text], valid: Sequence[Text]) -> dict[str, float]:
    """Bits per byte of the validation texts by counted runs of tokens, of the ``order`` that needs fewest.

    Each order falls back on the one below by the number of tokens that were seen after a run (I. Witten, T. Bell, 1991:
    The zero-frequency problem); the lowest gives all tokens the same.
    """
    seen: dict[tuple[int, ...], dict[int, int]] = {}
    counted, largest = 0, 0
    for text in train:
        ids = tuple(text.ids)
        largest = max(largest, *ids)
        for at, token in enumerate(ids):
            for size in range(min(ORDERS, at + 1)):
                counts = seen.setdefault(ids[at - size : at], {})
                counts[token] = counts.get(token, 0) + 1
        counted += len(ids)
        if counted > MOST:
            break
    totals = {run: sum(after.values()) for run, after in seen.items()}
    nats, tokens = [0.0] * ORDERS, max([largest, *(max(text.ids) for text in valid)]) + 1
    for text in valid:
        ids = tuple(text.ids)
        for at in range(max(1, text.asked), len(ids)):
            chance = 1 / tokens
            for size in range(ORDERS):
                if size <= at and (after := seen.get(ids[at - size : at])):
                    run = ids[at - size : at]
                    chance = (after.get(ids[at], 0) + len(after) * chance) / (totals[run] + len(after))
                nats[size] -= math.log(chance)
    size = max(1, sum(text.size for text in valid))
    best = min(range(ORDERS), key=lambda order: nats[order])
    return {"order": best + 1, "bits_per_byte": nats[best] / math.log(2) / size}


def memorised(written: Sequence[str], train: Iterable[str], length: int = RUN) -> float | None:
    """The share of runs of `length` characters in what was written that stand in a training text; None without a run.

    After N. Carlini et al. 2023: Quantifying memorization across neural language models.
    """
    runs = [text[at : at + length] for text in written for at in range(len(text) - length + 1)]
    if not runs:
        return None
    wanted, found = set(runs), set[str]()
    for text in train:
        for at in range(len(text) - length + 1):
            piece = text[at : at + length]
            if piece in wanted:
                found.add(piece)
    return sum(run in found for run in runs) / len(runs)
