"""Overlap of test rows with training rows by n-grams of words, as language models are checked (Brown et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from contracts.texts import ngrams, words

if TYPE_CHECKING:
    import pandas as pd

SIZE = 8  # words, or Chinese characters, of a run
SHARE = 0.7  # of its runs: a row with as many in the training rows is contaminated
_OWN = {"id", "label", "row_key"}


def contaminated(train: Sequence[str], test: Sequence[str]) -> list[int]:
    """Places of the test texts of whose runs of words the training texts have `SHARE`; short texts are one run."""
    known: set[tuple[str, ...]] = set()
    tested = [words(text) for text in test]
    sizes = {min(SIZE, len(tokens)) for tokens in tested}
    for text in train:
        tokens = words(text)
        for size in sizes:
            if size == SIZE:
                known.update(ngrams(tokens, size))
            elif size == len(tokens):
                known.add(tuple(tokens))
    found = []
    for at, tokens in enumerate(tested):
        runs = ngrams(tokens, min(SIZE, len(tokens)))
        if runs and sum(run in known for run in runs) >= SHARE * len(runs):
            found.append(at)
    return found


def row_texts(frame: pd.DataFrame) -> list[str]:
    """What is said in each row, the answer too: without it, questions that differ in one word would be one."""
    names = [name for name in frame.columns if name not in _OWN and not str(name).startswith("slice_")]
    fields: list[Any] = [frame[name].fillna("").astype(str) for name in names if frame[name].dtype.kind == "O"]
    fields.append(frame["label"].astype(str))
    return ["\n".join(row) for row in zip(*fields, strict=True)]
