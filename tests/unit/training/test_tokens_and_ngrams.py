"""Tokenizers trained on the data, and n-gram counts that equal the served operator's."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.training.ngrams import NgramVocabulary
from pipelines.training.tokens import END_ID, PAD_ID, START_ID, UNKNOWN_ID, tokenise, train_tokenizer

ROWS = st.lists(st.lists(st.integers(1, 6), max_size=12), min_size=1, max_size=8)


def words(text: str, **options: object) -> list[str]:
    settings = {"unit": "word", "vocabulary": 1000, "min_frequency": 1, **options}
    tokenizer = train_tokenizer([text], **settings)  # type: ignore[arg-type]
    return tokenizer.encode(text).tokens


def test_words_are_lower_case_and_chinese_is_split_by_character() -> None:
    assert words("The ＢＡＮＫ's 利率 rose") == ["the", "bank", "'", "s", "利", "率", "rose"]


def test_characters_keep_digits_and_one_blank() -> None:
    assert words("2012年 \n ok", unit="character") == ["2", "0", "1", "2", "年", " ", "o", "k"]


def test_boundaries_enclose_the_text() -> None:
    tokenizer = train_tokenizer(["a b"], unit="word", vocabulary=10, min_frequency=1, boundaries=True)
    assert tokenise(tokenizer, ["a b", ""], 10) == [[START_ID, 4, 5, END_ID], [START_ID, END_ID]]


def test_the_same_texts_give_the_same_vocabulary_and_rare_words_are_unknown() -> None:
    texts = ["b a", "c a b", "a d"] * 2
    made = [train_tokenizer(texts, unit="word", vocabulary=6, min_frequency=2) for _ in range(3)]
    assert len({tokenizer.to_str() for tokenizer in made}) == 1
    assert tokenise(made[0], ["a b c zebra"], 10)[0] == [4, 5, UNKNOWN_ID, UNKNOWN_ID]
    assert PAD_ID not in tokenise(made[0], ["[PAD] a"], 10)[0][1:]


def count_by_hand(rows: list[list[int]], terms: np.ndarray) -> np.ndarray:
    wanted = [tuple(i for i in term if i >= 0) for term in terms.tolist()]
    return np.array(
        [
            [sum(tuple(row[at : at + len(t)]) == t for at in range(len(row) - len(t) + 1)) for t in wanted]
            for row in rows
        ]
    ).reshape(len(rows), len(wanted))


@given(learn=ROWS, count=ROWS, longest=st.integers(1, 3))
@settings(deadline=None, max_examples=60)
def test_counts_are_those_of_every_ngram(learn: list[list[int]], count: list[list[int]], longest: int) -> None:
    vocabulary = NgramVocabulary.learn(learn, longest=longest, min_documents=1, max_terms=500, unused=(0, 1))
    found = vocabulary.count(count).toarray()
    np.testing.assert_array_equal(found, count_by_hand(count, vocabulary.terms))
    assert len(np.unique(vocabulary.terms, axis=0)) == len(vocabulary.terms)
    assert UNKNOWN_ID not in vocabulary.terms


def test_terms_need_documents_not_occurrences_and_the_commonest_stay() -> None:
    rows = [[2, 2, 2, 3], [3, 4], [3, 4], [4]]
    by_documents = NgramVocabulary.learn(rows, longest=1, min_documents=2, max_terms=9, unused=(0, 1))
    assert by_documents.terms.tolist() == [[3], [4]]
    cut = NgramVocabulary.learn([*rows, [3]], longest=1, min_documents=1, max_terms=1, unused=(0, 1))
    assert cut.terms.tolist() == [[3]]
