"""Questions that are made of documents, where nobody asked any: the telling words of a sentence.

A question that nothing answers has words of two sentences of different documents. Both are easier to tell than what
people ask, who use other words than the documents.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from contracts import orders
from contracts.passages import passages
from contracts.search_terms import terms
from contracts.texts import words

if TYPE_CHECKING:
    import pandas as pd

_FEWEST, _MOST = 4, 40  # words of a sentence that is asked about
_TELLING = 4  # of its words, in a question
_NOTHING = 0.25  # of the questions


def made_questions(paragraphs: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """At most `count` questions: columns id, question, answer, evidence, document and labels.

    Args:
        paragraphs: columns document, labels and text.
    """
    import pandas as pd

    rng = np.random.default_rng(seed)
    sentences = [
        (document, labels, sentence)
        for document, labels, text in paragraphs[["document", "labels", "text"]].itertuples(index=False)
        for sentence in passages(text, "sentence")
        if len(set(terms(sentence))) >= _FEWEST and len(words(sentence)) <= _MOST and not orders.in_document(sentence)
    ]
    having = Counter(word for _, _, sentence in sentences for word in set(words(sentence)))
    order = rng.permutation(len(sentences)).tolist()[:count]
    rows = []
    for number, at in enumerate(order):
        document, labels, sentence = sentences[at]
        asked, answer = _telling(sentence, having), sentence
        if number % round(1 / _NOTHING) == 0:
            other = next((sentences[place] for place in reversed(order) if sentences[place][0] != document), None)
            if other is not None:
                half = _TELLING // 2
                asked, answer = _telling(sentence, having)[:half] + _telling(other[2], having)[:half], ""
        rng.shuffle(asked)
        rows.append((f"made#{number}", " ".join(asked), answer, answer, document if answer else "", labels))
    return pd.DataFrame(rows, columns=["id", "question", "answer", "evidence", "document", "labels"])


def _telling(sentence: str, having: Counter[str]) -> list[str]:
    """The words of a sentence that fewest sentences have; of Chinese ones runs of characters."""
    found = dict.fromkeys(word for word in words(sentence) if terms(word))
    if sum(len(word) == 1 for word in found) > len(found) / 2:
        signs = [word for word in words(sentence) if len(word) == 1]
        pairs = [first + second for first, second in pairwise(signs) if len(terms(first + second)) > 2]
        return sorted(dict.fromkeys(pairs), key=lambda pair: having[pair[0]] + having[pair[1]])[:_TELLING]
    return sorted(found, key=lambda word: having[word])[:_TELLING]
