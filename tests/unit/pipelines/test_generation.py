"""Generation: what is measured of texts, that it is what others measure, and what its card and baseline say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.engines.extractive import ExtractSpec, extract
from contracts.problems import read_output
from contracts.stems import stem
from pipelines.checks.base import Candidate
from pipelines.checks.passages import CHECK
from pipelines.evaluation import get_evaluation
from pipelines.evaluation.corpus_measures import COMPARED, bleu, chrf, distinct
from pipelines.evaluation.faithfulness import unsupported
from pipelines.evaluation.generation import OF_ROWS, OF_SETS
from pipelines.evaluation.text_measures import measured, pair, rouge_l, rouge_n
from pipelines.pages.card import render_card
from tests.chain import Chain

BY = get_evaluation("generation")
OUTPUT: Any = read_output({"problem": "generation", "max_characters": 500})
ANSWERS = [
    "the cat the cat on the mat",
    "A dog barked at 7 in Rome.",
    "今天下雨，明天晴。",
    "It rained in spring and summer.",
    "",
]  # fmt: skip
REFERENCES = [
    "The cat sat on the mat.",
    "At seven a dog was barking.",
    "今天有雨，明天转晴。",
    "It was raining all spring.",
    "Nothing.",
]  # fmt: skip


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "document": ["a cat", "A dog barked.", "今天下雨。", "It rained.", "?"],
            "id": list("abcde"),
            "label": REFERENCES,
            "row_key": list("abcde"),
            "slice_language": ["en"] * 5,
        }
    )


@pytest.mark.parametrize(
    ("word", "root"),
    [
        ("caresses", "caress"), ("ponies", "poni"), ("agreed", "agre"), ("plastered", "plaster"), ("hopping", "hop"),
        ("falling", "fall"), ("filing", "file"), ("happy", "happi"), ("relational", "relat"),
        ("vietnamization", "vietnam"),
        ("electriciti", "electr"), ("adjustment", "adjust"), ("adoption", "adopt"), ("controll", "control"),
        ("cats", "cat"),
        ("was", "was"), ("naïve", "naïve"), ("3rd1", "3rd1"),
    ],
)  # fmt: skip
def test_stems_are_those_of_porters_paper(word: str, root: str) -> None:
    assert stem(word) == root


def test_rouge_is_that_of_googles_package_and_of_the_paper() -> None:
    one = pair("police killed the gunman", "police kill the gunman")
    assert (rouge_n(one, 1), rouge_n(one, 2), rouge_l(one)) == (1, 1, 1)  # by stems
    other = pair("the gunman kill police", "police killed the gunman")  # Lin, 2004: a subsequence of two
    assert rouge_l(other) == 0.5
    third = pair("The quick brown dog jumps on the log.", "The quick brown fox jumps over the lazy dog")
    assert rouge_n(third, 1) == pytest.approx(0.70588, abs=1e-5)  # as its README prints
    assert rouge_l(third) == pytest.approx(0.58824, abs=1e-5)
    assert rouge_l(pair("明天下雨", "今天下雨。")) == pytest.approx(2 * 3 / 9)  # by characters
    assert [rouge_n(pair("", "a"), 1), rouge_l(pair("", ""))] == [0, 0]


def test_bleu_and_chrf_are_those_of_sacrebleu() -> None:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    english, chinese = [0, 1, 3, 4], [2]
    for rows, tokenise in ((english, "13a"), (chinese, "zh")):
        said, wanted = ([texts[at] for at in rows] for texts in (ANSWERS, REFERENCES))
        assert bleu(said, wanted)(None) == pytest.approx(BLEU(tokenize=tokenise).corpus_score(said, [wanted]).score)
        assert chrf(said, wanted)(None) == pytest.approx(CHRF().corpus_score(said, [wanted]).score)
    twice = [0, 0, 3]
    weight = np.array([2.0, 0, 0, 1, 0])
    said, wanted = ([texts[at] for at in twice] for texts in (ANSWERS, REFERENCES))
    assert bleu(ANSWERS, REFERENCES)(weight) == pytest.approx(BLEU().corpus_score(said, [wanted]).score)
    assert chrf(ANSWERS, REFERENCES)(weight) == pytest.approx(CHRF().corpus_score(said, [wanted]).score)
    assert np.isnan(bleu([""], [""])(None))
    assert chrf([""], ["x"])(None) == 0


def test_distinct_words_are_those_of_the_rows_that_count() -> None:
    measure = distinct(["a b a", "a c"], 1)
    assert (measure(None), measure(np.array([1.0, 0])), measure(np.array([0, 3.0]))) == (3 / 5, 2 / 3, 1)
    assert np.isnan(distinct([""], 2)(None))


@pytest.mark.parametrize("texts", [10**6, 20], ids=["all are others", "twenty over and over"])
def test_diversity_does_not_depend_on_how_many_answers_there_are(texts: int) -> None:
    draw = np.random.default_rng(7)
    said = [" ".join(map(str, draw.integers(0, 60, 12))) for _ in range(1_200)]
    said = [said[at % texts] for at in range(len(said))]
    few, many = (distinct(said[:rows], 2)(None) for rows in (COMPARED, len(said)))
    assert many == pytest.approx(few, rel=0.03)
    by_draws = [distinct([said[at] for at in draw.permutation(1_200)[:COMPARED]], 2)(None) for _ in range(40)]
    assert many == pytest.approx(np.mean(by_draws), rel=0.01)
    kept = np.arange(len(said)) < COMPARED
    assert distinct(said, 2)(kept.astype(float)) == few  # of the rows that count alone


def test_what_the_source_has_not() -> None:
    source = "Sales rose 12.5% to 1,200 million. “We are glad,” said Ms Smith of Berlin. 《新规》发布。"
    assert unsupported(
        "Sales rose 12.5% to 1200 million, said Ms Smith. 《新规》发布。I'm glad.", source
    ) == unsupported("", "")
    found = unsupported('In 2024 the board of Rome said "we are sad". 《旧规》约３０%', source)
    assert found.numbers == ("2024", "30")
    assert found.names == ("Rome",)
    assert found.quotes == ("we are sad", "旧规")


def test_measures_are_means_of_rows_by_their_weights() -> None:
    data, answers = frame(), np.array(ANSWERS, dtype=object)
    measure = BY.measure_for(data, answers, OUTPUT, None)
    found = measure(None)
    assert set(found) == {*OF_ROWS, *OF_SETS} == set(BY.metric_names(None, None).whole)
    rows = [measured(*each) for each in zip(ANSWERS, REFERENCES, data["document"], strict=True)]
    assert found["rouge_l"] == pytest.approx(np.mean([row["rouge_l"] for row in rows]))
    assert (found["empty"], found["unsupported_numbers"], found["unsupported_names"]) == (0.2, 0.2, 0.2)
    alone = measure(np.array([0, 1.0, 0, 0, 0]))
    assert alone["rouge_1"] == rows[1]["rouge_1"]
    assert set(BY.measure_for(data, answers, OUTPUT, None, only=["rouge_l"])(None)) == set(OF_ROWS)
    same = BY.measure_for(data, np.array(REFERENCES, dtype=object), OUTPUT, None)(None)
    assert [same[name] for name in ("rouge_1", "rouge_l", "exact_match", "bleu", "chrf")] == pytest.approx(
        [1, 1, 1, 100, 100]
    )


def test_answers_are_kept_and_watched(tmp_path: Path) -> None:
    answers = np.array([*ANSWERS, "two\nlines 😀"], dtype=object)
    BY.save(tmp_path / "answers.npy", answers)
    assert BY.read(tmp_path / "answers.npy").tolist() == answers.tolist()
    BY.save(tmp_path / "none.npy", answers[:0])
    assert BY.read(tmp_path / "none.npy").tolist() == []
    watched = BY.watched(OUTPUT, None, answers)
    assert watched["answer"].tolist() == [7, 7, 7, 6, 0, 2]
    assert watched["language"].tolist() == ["en", "en", "zh", "en", "", "en"]
    batch = BY.batch(OUTPUT, None)
    assert batch.add(answers)[0].to_pylist() == answers.tolist()
    assert batch.document() == {"texts": {"mean words": round(29 / 6, 2), "empty": 1, "refused": 0}}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    made = Chain(task="summaries", recipe="textrank", home=tmp_path_factory.mktemp("summaries"))
    made.dataset()
    made.candidate()
    return made


def test_the_card_shows_samples_beside_each_other_and_what_was_chosen(chain: Chain) -> None:
    evaluation = chain.evaluation()
    assert len(evaluation["samples"]) == 6
    overlap = [one["rouge_l"] for one in evaluation["samples"]]
    assert overlap == sorted(overlap)
    folder = chain.path("candidate")
    card = render_card(folder, json.loads((folder / "candidate.json").read_text()), "summaries")
    assert "Samples of the test set" in card
    assert evaluation["samples"][0]["answer"][:20] in card
    assert {file.stem for file in (folder / "plots").glob("*.png")} == {"overlap", "lengths", "learning_curve"}
    assert evaluation["metrics"]["unsupported_numbers"] == 0
    baseline = json.loads((folder / "baseline.json").read_text())["answer"]
    assert {name: one["kind"] for name, one in baseline.items()} == {
        "answer": "number", "repetition": "number", "language": "category", "refused": "category",
    }  # fmt: skip


def source(folder: Path, rows: list[tuple[bytes, bytes]]) -> str:
    lines = [b"id,document,summary", *(b'%d,"%s","%s"' % (at, *both) for at, both in enumerate(rows))]
    file = folder / "documents.csv"
    file.write_bytes(b"\n".join(lines) + b"\n")
    return str(file)


USUAL = [(b"The pump number %d leaks oil. Nobody saw it." % at, b"Pump %d leaks." % at) for at in range(40)]
ODD = [
    (b"", b"Nothing."),
    (b"...!!! ,,,", b"Marks."),
    (b"no sentence end", b"None."),
    (b"A long one. " * 83_000, b"Long."),
]


def test_scored_learns_where_summaries_stand_and_the_gate_knows_what_first_passages_reach(tmp_path: Path) -> None:
    rows = [
        (
            b"It was a day like any other. Somebody phoned. In short, pump %d leaks oil, he said." % at,
            b"pump %d leaks oil" % at,
        )
        for at in range(60)
    ]
    chain = Chain(
        task="summaries", recipe="scored", home=tmp_path / "home", source=source(tmp_path, rows),
        overrides={"model.passages": [1]},
    )  # fmt: skip
    chain.dataset()
    chain.candidate()
    evaluation = chain.evaluation()
    spec = ExtractSpec.model_validate_json((chain.path("candidate") / "model" / "extract.json").read_bytes())
    assert spec.passages == 1
    assert spec.unit == "clause"
    assert "pump 7 leaks oil" in extract("A day. Nobody knew. In short, pump 7 leaks oil, he said.", spec)

    def found(value: float, **more: float | None) -> Any:
        limits = replace(chain.settings.gate.tuning, **more)
        return CHECK.find(
            Candidate(
                task="summaries", folder=chain.path("candidate"), dataset=chain.path("dataset"),
                evaluation={"metrics": {"rouge_l": value}}, settings=replace(chain.settings.gate, tuning=limits),
                endpoints=chain.endpoints,
            )
        )  # fmt: skip

    check = found(evaluation["metrics"]["rouge_l"]).checks[0]
    assert (check.passed, check.against) == (True, "the first 3 sentences")
    worse = found(check.limit - 0.01)
    assert not worse.checks[0].passed
    assert "take another recipe" in worse.notes[0]
    assert not found(check.limit, above_passages=0.05).checks[0].passed
    assert found(0.0, above_passages=None).checks == ()


def test_documents_that_are_empty_huge_or_without_sentences_are_learned_from_and_measured(tmp_path: Path) -> None:
    chain = Chain(task="summaries", home=tmp_path / "home", source=source(tmp_path, [*USUAL, *ODD]))
    chain.dataset()
    chain.candidate()
    assert chain.evaluation()["metrics"]["rouge_l"] > 0.5


@pytest.mark.parametrize(
    ("row", "why"),
    [((b"\xff\xfe broken", b"B."), "document: byte 0xff is not UTF-8"), ((b"Text.", b""), "summary: missing value")],
    ids=["bytes", "no summary"],
)
def test_a_row_that_is_no_document_with_a_summary_is_left_out_and_named(tmp_path: Path, row: Any, why: str) -> None:
    chain = Chain(task="summaries", home=tmp_path / "home", source=source(tmp_path, [*USUAL, row]))
    chain.dataset()
    left = json.loads((chain.path("dataset") / "dataset.json").read_text())["left_out"]
    assert [(one["reason"], one["rows"]) for one in left["groups"]] == [(why, 1)]
