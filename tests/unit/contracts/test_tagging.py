"""Tokens, hashes, and the likeliest spans."""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.engines import load_engine
from contracts.engines.tagger import TaggerEngine, TaggerSpec, place_of
from contracts.errors import PlatformError
from contracts.tagging import Tagged, hidden, left_of, pieces, possible, spans, surest, tags_of
from contracts.token_hashes import AROUND, FEATURES, LAYOUT, WORDS, WordList, _hashes, tokenise, tokenise_all, width
from tests.problem_bundles import name_tagger

KINDS = ["PER", "LOC"]
TAGS = tags_of(KINDS)


def shown(text: str) -> list[str]:
    return [text[start:end] for start, end in tokenise(text, 1024).places]


def test_tokens_are_words_numbers_marks_and_single_chinese_characters() -> None:
    assert shown("Dr. O'Neill, 45\u00a0Main: 王小明ab") == [
        "Dr", ".", "O", "'", "Neill", ",", "45", "Main", ":", "王", "小", "明", "ab",
    ]  # fmt: skip
    assert shown(" \n\t") == []


def test_hashes_tell_the_word_its_form_and_those_beside_it() -> None:
    first, other, same = (tokenise(text, 1 << 16).ids for text in ("at Rome now", "at Oslo now", "at Rome now"))
    assert (first == same).all()
    assert first.min() >= 1
    assert (first[1] != other[1]).sum() >= 4  # word, both pairs, and letters
    assert first[1, 3] == other[1, 3]  # the form
    assert first[0, 0] == other[0, 0]
    assert first[0, 2] != other[0, 2]  # the word behind it


def test_what_is_known_of_a_list_of_words_is_told_beside_the_tokens() -> None:
    words = WordList.of(
        ["北京 50 ns", "北京大学\tnt", "京 9 n", "New York\tns", "one two three four five six seven", ""]
    )
    assert len(words.known) == 3  # no single sign, nothing of seven tokens
    text = "在北京大学, new york"
    here, without = tokenise(text, 1 << 16, words), tokenise(text, 1 << 16)
    assert here.ids.shape == (8, width(words)) == (8, FEATURES + WORDS)
    assert (here.ids[:, :FEATURES] == without.ids).all()
    signs = np.array([_hashes(text[a:b])[0] for a, b in here.places], np.uint32)
    begins, ends, inside, _ = words.at(signs, np.zeros(len(signs), np.int64))
    assert begins.tolist() == [0, begins[1], 0, 0, 0, 0, begins[6], 0]
    assert begins[1] == ends[4] == inside[2] == inside[3]  # the longest one
    assert (begins[1] // 256, begins[6] // 256) == (4, 2)
    assert ends.tolist() == [0, 0, ends[2], 0, ends[4], 0, 0, begins[6]]
    assert ends[2] == 2 * 256 + begins[6] % 256  # 北京, of the kind of New York
    assert begins[1] % 256 != begins[6] % 256


@given(st.lists(st.text(max_size=12), max_size=12), st.text(max_size=30))
@settings(max_examples=60, deadline=None)
def test_any_list_and_any_text_are_read(lines: list[str], text: str) -> None:
    words = WordList.of(lines)
    again = WordList(words.known)
    assert (np.diff((words.known >> np.uint64(8)).astype(np.int64)) > 0).all()
    tokens = tokenise(text, 64, words)
    assert (tokens.ids == tokenise(text, 64, again).ids).all()
    assert tokens.ids.shape == (len(tokens.places), width(words))


def test_a_word_of_the_list_does_not_go_over_the_end_of_a_text() -> None:
    words = WordList.of(["北京 50 ns"])
    (one, other), both = tokenise_all(["在北", "京"], 1 << 16, words), tokenise("在北京", 1 << 16, words)
    assert (one.ids[1] == tokenise("在北", 1 << 16, words).ids[1]).all()
    assert (other.ids == tokenise("京", 1 << 16, words).ids).all()
    assert other.ids[0, FEATURES + 1] != both.ids[2, FEATURES + 1]


def test_what_is_around_a_token_is_told_where_it_is_asked_for() -> None:
    plain, around = (tokenise("he lives at 12 Elm St, Rome", 1 << 16, around=one).ids for one in (False, True))
    assert around.shape == (8, width(None, around=True)) == (8, FEATURES + AROUND)
    assert (around[:, :FEATURES] == plain).all()
    left, right = FEATURES + 12, FEATURES + 14
    assert len(set(around[3:, left])) == 1  # "at" leads to all of the address
    assert around[2, left] != around[3, left]
    assert len(set(around[2:, right])) == 1 != len(set(around[:, right]))  # no small word behind it
    signs = tokenise("出席的有、王明和李四", 1 << 16, around=True).ids
    assert len(set(signs[5:, left])) == 1 != len(set(signs[4:, left]))


def test_hashes_are_those_that_models_were_trained_with() -> None:
    texts = ["Dr. Anna O'Neill\n 12 Elm St,\n\nRome (IT) at 5", "记者王小明从北京大学报道：New York", ""]
    words = WordList.of(["北京大学\tnt", "New York\tns", "the 9 x"])
    for around, listed, known in ((0, None, 2223435242), (1, words, 3068520218), (2, words, 3277921620)):
        read = tokenise_all(texts, 1 << 20, listed, around)
        assert zlib.crc32(b"".join(one.ids.tobytes() for one in read)) == known


def test_how_a_text_is_set_is_told_where_it_is_asked_for() -> None:
    def layout(text: str) -> Any:
        ids = tokenise(text, 1 << 16, around=2).ids
        assert ids.shape[1] == width(None, around=2) == FEATURES + AROUND + LAYOUT
        assert (ids[:, : FEATURES + AROUND] == tokenise(text, 1 << 16, around=1).ids).all()
        return ids[:, FEATURES + AROUND :]

    address, parts = layout("Ann\n\n12 Elm\n Rome\n Italy"), layout("Ann\n\n12 Elm\n Rome\n\n Italy")
    assert (address[1, [1, 2, 3]] != parts[1, [1, 2, 3]]).all()  # what breaks of lines follow
    assert address[1, 0] == parts[1, 0]  # the last break, and the next one
    assert (layout("to 12 Elm, Rome.")[1, [5, 6]] != layout("to 12 Elm, Rome, Italy.")[1, [5, 6]]).all()
    assert layout("to 12 Elm by day")[1, 9] != layout("to 12 Elm by night")[1, 9]  # the small word beyond the next


@given(st.lists(st.text("ab 王。,\n1", max_size=9), max_size=6), st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_texts_that_are_read_together_tell_what_each_tells_alone(texts: list[str], around: int) -> None:
    words = WordList.of(["王王", "a b\tx"])
    for text, found in zip(texts, tokenise_all(texts, 1024, words, around), strict=True):
        alone = tokenise(text, 1024, words, around)
        assert (found.ids == alone.ids).all()
        assert (found.places == alone.places).all()
        assert found.ids.shape == (len(found.places), width(words, around))


@given(st.text(max_size=80))
@settings(max_examples=100, deadline=None)
def test_any_text_is_read_and_places_are_in_order(text: str) -> None:
    tokens = tokenise(text, 64)
    edges = tokens.places.ravel().tolist()
    assert edges == sorted(edges)
    assert "".join(text[a:b] for a, b in tokens.places).split() == "".join(text.split()).split()
    if len(tokens.ids):
        assert 1 <= tokens.ids.min() <= tokens.ids.max() < 64


@given(st.integers(0, 60), st.integers(8, 20))
@settings(max_examples=50, deadline=None)
def test_pieces_are_all_tokens_once(count: int, most: int) -> None:
    text = "ab. " * (count // 2) + "x" * (count % 2)
    tokens = tokenise(text, 64)
    found = list(pieces(text, tokens.places, most))
    assert [at for part in found for at in range(len(tokens.places))[part]] == list(range(len(tokens.places)))
    assert all(part.stop - part.start <= most for part in found)
    assert all(text[tokens.places[part.stop - 1, 0]] == "." for part in found[:-1])


@given(st.lists(st.lists(st.floats(-4, 4), min_size=5, max_size=5), min_size=1, max_size=5), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_the_likeliest_path_is_that_of_trying_all(rows: list[list[float]], seed: int) -> None:
    scores = np.array(rows)
    moves = np.random.default_rng(seed).normal(0, 1, (5, 5))
    allowed = possible(5)

    def total(path: Sequence[int]) -> float:
        pairs = list(itertools.pairwise((0, *path)))
        if not all(allowed[a, b] for a, b in pairs):
            return -np.inf
        return float(sum(moves[pair] for pair in pairs) + sum(scores[at, tag] for at, tag in enumerate(path)))

    places = np.array([[at, at + 1] for at in range(len(rows))])
    found = spans(scores.astype(np.float32), places, KINDS, moves)
    path = [0] * len(rows)
    for one in found:
        path[one.start : one.end] = [2 + 2 * KINDS.index(one.kind)] * (one.end - one.start)
        path[one.start] -= 1
    best = max(total(each) for each in itertools.product(range(5), repeat=len(rows)))
    assert total(path) == pytest.approx(best, abs=1e-5)
    assert all(0 < one.score <= 1 for one in found)


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(0, 4), st.sampled_from([0.0, 4.0, -1.0]))
@settings(max_examples=150, deadline=None)
def test_a_text_of_many_parts_has_the_path_of_one(seed: int, count: int, kinds: int, caution: float) -> None:
    rng, names = np.random.default_rng(seed), [f"K{at}" for at in range(kinds)]
    scale = rng.choice([0.3, 2.0, 6.0], 2)
    scores, moves = rng.normal(size=(count, 1 + 2 * kinds)) * scale[0], rng.normal(size=[1 + 2 * kinds] * 2) * scale[1]
    scores[rng.random(count) < 0.5, 0] += 10  # what is outside for sure, more or less
    places = np.arange(count)[:, None] + np.array([0, 1])
    steps = np.where(possible(1 + 2 * kinds), moves, -np.inf)
    steps[0, 1::2] += caution
    best, before = scores[0] + steps[0], np.zeros((0, 1 + 2 * kinds), int)
    for row in scores[1:]:
        ways = best[:, None] + steps
        best, before = ways.max(axis=0) + row, np.vstack([before, ways.argmax(axis=0)])
    path = [int(best.argmax())]
    for row in before[::-1]:
        path.append(int(row[path[-1]]))
    tags = [0] * count
    for one in spans(scores.astype(np.float32), places, names, moves, caution):
        tags[one.start : one.end] = [2 + 2 * names.index(one.kind)] * (one.end - one.start)
        tags[one.start] -= 1
    assert tags == path[::-1]


def test_nothing_goes_on_with_what_did_not_begin() -> None:
    allowed = possible(len(TAGS))
    pairs = {(TAGS[a], TAGS[b]) for a, b in zip(*np.nonzero(allowed), strict=True)}
    assert ("O", "I-PER") not in pairs
    assert ("B-LOC", "I-PER") not in pairs
    assert {("B-PER", "I-PER"), ("I-PER", "I-PER"), ("I-LOC", "B-LOC"), ("I-PER", "O")} <= pairs


def test_caution_finds_more() -> None:
    logits, places = np.array([[2.0, 1.0, -9, -9, -9]], np.float32), np.array([[0, 3]])
    still = np.zeros((5, 5))
    assert spans(logits, places, KINDS, still) == []
    assert [one[:3] for one in spans(logits, places, KINDS, still, caution=1.5)] == [(0, 3, "PER")]


def test_a_caution_of_its_own_adds_spans_of_its_kind_and_takes_none_away() -> None:
    # Two persons that stand together, nothing, what may be either kind, and a place.
    rows = [[0, 9, -9, -9, -9], [0, 9, -9, -9, -9], [9, -99, -9, -99, -9], [2, 1, -9, 0.5, -9], [0, -9, -9, 9, -9]]
    logits, still = np.array(rows, np.float32), np.zeros((5, 5))
    places = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [5, 6]])
    sure = [(0, 1, "PER"), (1, 2, "PER"), (5, 6, "LOC")]

    def found(**own: float) -> list[tuple[int, int, str]]:
        cautions = np.array([own.get(kind, 0.0) for kind in KINDS])
        return [one[:3] for one in spans(logits, places, KINDS, still, 0.0, cautions)]

    assert found() == [one[:3] for one in spans(logits, places, KINDS, still)] == sure
    for caution in (1.5, 50.0):  # with much of it two that stand together would be one beside nothing
        assert found(PER=caution) == [*sure[:2], (3, 4, "PER"), sure[2]]


def test_an_engine_adds_the_caution_that_a_type_has_of_its_own(tmp_path: Path) -> None:
    bundle = name_tagger(tmp_path, anna="PER", rome="LOC")
    file = bundle.model_path / "tagger.json"
    spec = json.loads(file.read_text())
    plain: Any = load_engine(bundle)
    assert [len(one) for one in plain.tag(["Anna in Rome", "nobody"])] == [2, 0]
    file.write_text(json.dumps({**spec, "cautions": {"LOC": 1e6}}))
    engine: Any = load_engine(bundle)
    assert [one.kind for one in engine.tag(["nobody"])[0]] == ["LOC"]


def test_a_model_of_before_there_were_layouts_is_read() -> None:
    old = '{"size": 4, "transitions": [[0.0]], "max_characters": 9, "around": true}'
    assert TaggerSpec.model_validate_json(old).around == 1


def test_an_engine_reads_long_and_empty_texts_and_a_row_does_not_depend_on_others(tmp_path: Path) -> None:
    engine = load_engine(name_tagger(tmp_path, anna="PER", berg="PER", 罗="LOC", 马="LOC"))
    assert isinstance(engine, TaggerEngine)
    texts = ["I saw Anna Berg in 罗马. " * 9, "", "Anna\n\nBerg", "nobody"]
    together = engine.tag(texts)
    assert together == [engine.tag([text])[0] for text in texts]
    assert [(texts[0][one.start : one.end], one.kind) for one in together[0]] == [
        ("Anna Berg", "PER"),
        ("罗马", "LOC"),
    ] * 9
    assert [one[:3] for one in together[2]] == [(0, 10, "PER")]
    assert together[1] == together[3] == []


def test_reasons_of_a_span_are_the_tokens_without_which_it_is_not_found(tmp_path: Path) -> None:
    engine: Any = load_engine(name_tagger(tmp_path, anna="PER", berg="PER"))
    texts = np.array(["I saw Anna Berg. " * 40, "nobody", ""], dtype=object)
    [told, *none] = engine.explain({"text": texts}, 2)
    assert none == [[], []]
    assert [(one.value, texts[0][slice(*place_of(one.feature))]) for one in told] == [
        ("Anna", "Anna"),
        ("Berg", "Berg"),
    ]
    assert all(one.contribution > 1 for one in told)
    with pytest.raises(ValueError, match="names no place"):
        place_of("Anna")


def test_what_is_left_of_a_span() -> None:
    span = Tagged(10, 20, "PER", 0.9)
    assert surest([span, span._replace(score=0.95, start=12), span._replace(start=0)]) == (12, 20, "PER", 0.95)
    assert surest([]) is None
    assert left_of(span, [span, Tagged(0, 5, "PER", 1.0)]) == pytest.approx(0.9)
    assert left_of(span, [Tagged(15, 25, "PER", 0.6)]) == pytest.approx(0.6 / 3)
    assert left_of(span, [Tagged(10, 20, "LOC", 1.0)]) == left_of(span, []) == 0
    assert hidden("I saw Anna", 4, 8) == "I sa□ □□na"


def test_a_tagger_without_its_settings_is_refused(tmp_path: Path) -> None:
    bundle = name_tagger(tmp_path)
    (bundle.model_path / "tagger.json").write_text("{}")
    with pytest.raises(PlatformError, match="text model refused"):
        load_engine(bundle)
