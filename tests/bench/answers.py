"""Answers from documents: retrieval among many passages beside its peers, and what the built-in documents reach.

    python -m tests.bench.answers --passages 100000 --questions 60 --seeds 7 8 9

Passages are of Zipf's words, questions are words of one of them. In each round every way answers the same question, one
after another, so that what else runs here slows all alike. Peers are optional: rank_bm25, bm25s.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from contracts.answering import AnsweringSpec
from contracts.engines.answers import read_model, write_model
from contracts.lexical import lexical_index
from contracts.nearest import write_nearest
from contracts.problems.answering import Passage, listed
from contracts.search_terms import terms
from contracts.text_vectors import VectorsSpec
from tests.bench.report import Row, write

OURS = "hybrid search (ours)"
_WORDS, _PER_PASSAGE, _PER_QUESTION = 50_000, 60, 8


def corpus(count: int, seed: int) -> tuple[list[str], list[str]]:
    """Texts of passages, and the words."""
    rng = np.random.default_rng(seed)
    words = [f"{'bcdfghklmnprstvz'[at % 16]}{'aeiou'[at // 16 % 5]}{at:x}q" for at in range(_WORDS)]
    chance = 1 / np.arange(1, _WORDS + 1) ** 1.05
    drawn = rng.choice(_WORDS, size=(count, _PER_PASSAGE), p=chance / chance.sum())
    return [" ".join(words[at] for at in row) for row in drawn.tolist()], words


def retrieval(count: int, asked: int, seed: int) -> list[Row]:
    """Milliseconds of a search by each way, p50 and p95, and how often it gives the passage that was asked about."""
    from pipelines.training.answers import BY_WORDS, term_vectors

    texts, _ = corpus(count, seed)
    rng = np.random.default_rng(seed + 1)
    began = perf_counter()
    found = [
        Passage(f"d#{at}", "d", "d", "", 0, ("x",) if at % 4 == 3 else (), 0.0, one) for at, one in enumerate(texts)
    ]
    split = [terms(one) for one in texts]
    lexical = lexical_index(split)
    made = {"terms to index": round(perf_counter() - began, 1)}
    began = perf_counter()
    vectors, projection = term_vectors(lexical, 128, 50_000, seed)
    made["vectors"] = round(perf_counter() - began, 1)
    ways: dict[str, Callable[[str, list[str]], Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        vectors_spec = VectorsSpec(kind="terms", dimensions=vectors.shape[1])
        spec = AnsweringSpec(judge=BY_WORDS, threshold=0.5, vectors=vectors_spec)
        write_model(folder, spec, found, lexical, vectors, projection)
        brute = read_model(folder)
        began = perf_counter()
        write_nearest(folder, vectors, [vectors[at] for at in range(0, count, max(1, count // 100))], 200, 0.95, 2)
        made["index of vectors"] = round(perf_counter() - began, 1)
        model = read_model(folder)
        ways[OURS] = lambda text, split: model.ranked(model.question(text), [])[0][:5]
        ways["hybrid search, vectors by numpy"] = lambda text, split: brute.ranked(brute.question(text), [])[0][:5]
        ways["whole answer (ours)"] = lambda text, split: [int(one.id[2:]) for one in model.answer(text).passages]
        ways["words alone (ours)"] = lambda text, split: np.argsort(-lexical.scores(split), kind="stable")[:5]
        _peers(ways, split)
        times: dict[str, list[float]] = {name: [] for name in ways}
        hits = dict.fromkeys(ways, 0)
        chosen = [int(at) for at in rng.choice(count, size=asked * 2, replace=False) if at % 4 != 3][:asked]
        for number, at in enumerate([*chosen[:3], *chosen]):
            words = rng.choice(texts[at].split(), size=_PER_QUESTION, replace=False).tolist()
            text = " ".join(words)
            for name in rng.permutation(list(ways)).tolist():
                start = perf_counter()
                places = ways[name](text, terms(text))
                if number >= 3:  # the first ones warm up
                    times[name].append((perf_counter() - start) * 1e3)
                    hits[name] += at in [int(place) for place in places]
    case, rows = f"{count:,} passages", list[Row]()
    for name, values in times.items():
        p50, p95 = (round(float(np.percentile(values, part)), 2) for part in (50, 95))
        goal = "<= 20" if name == OURS else ""
        rows.append(Row(case=f"{case}, p50", contestant=name, value=p50, unit="ms", goal=goal))
        rows.append(Row(case=f"{case}, p95", contestant=name, value=p95, unit="ms"))
        share = round(hits[name] / len(values), 3)
        rows.append(Row(case=f"{case}, found among 5", contestant=name, value=share, unit="share"))
    return [*rows, *(Row(case=case, contestant=name, value=value, unit="s") for name, value in made.items())]


def _peers(ways: dict[str, Callable[[str, list[str]], Any]], split: list[list[str]]) -> None:
    """Those of the peers that are installed."""
    try:
        from rank_bm25 import BM25Okapi

        okapi = BM25Okapi(split)
        ways["rank_bm25"] = lambda text, words: np.argsort(-okapi.get_scores(words))[:5]
    except ImportError:
        pass
    try:
        import bm25s

        eager = bm25s.BM25()
        eager.index(split, show_progress=False)
        ways["bm25s"] = lambda text, words: eager.retrieve([words], k=5, show_progress=False)[0][0]
    except ImportError:
        pass


def quality(seed: int) -> list[Row]:
    """What the built-in documents reach with this seed."""
    import pandas as pd

    from pipelines.evaluation.answering import EVALUATION
    from pipelines.tasks import get_task, recipe_config
    from pipelines.training.answers import train_answers

    task = get_task("answers")
    config = recipe_config(task, "hybrid", {"seed": seed})
    frame = pd.concat([one.to_pandas() for one in task.default_source(config)])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        parts = dict(task.split(frame, config))
        for name, rows in parts.items():
            rows.to_parquet(folder / f"{name}.parquet")
        made = train_answers(folder, config, folder / "model", folder / "cache", lambda *a, **m: None)
        model = read_model(folder / "model")
        test = parts["test"]
        answers = np.empty(len(test), dtype=object)
        for at, (question, labels) in enumerate(zip(test["question"], test["labels"], strict=True)):
            answers[at] = model.answer(question, listed(labels))
    output: Any = made["output"]
    found = EVALUATION.measure_for(test, answers, output, None)(None)
    goals = {"recall_at_5": ">= 0.9", "citation_precision": ">= 0.9"}
    case = f"built-in documents, seed {seed}"
    return [
        Row(case=case, contestant=name, value=round(value, 4), unit="share", goal=goals.get(name, ""))
        for name, value in found.items()
    ]


def main() -> int:
    """Measure, show and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="*", default=[7, 8, 9])
    given = parser.parse_args()
    rows = retrieval(given.passages, given.questions, 1) if given.passages else []
    rows += [row for seed in given.seeds for row in quality(seed)]
    return write("answers", "make bench-answers", rows)


if __name__ == "__main__":
    raise SystemExit(main())
