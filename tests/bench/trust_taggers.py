"""Taggers that the platform trains: Chinese news (MSRA) and made-up English sentences with sixteen types.

MSRA: the last 3,000 sentences are the test, the 3,000 before them the validation part, which are of other articles as
well: on them persons have to reach a recall where there is a list of words (``pip install jieba`` brings one). English:
a hash of the text chooses the test part, a quarter of the sentences; other sentences of the same templates are in the
training. By template: all sentences of a template are in one part. Settings were chosen on validation parts, those of
English by four parts of the training, each in turn.
"""

from __future__ import annotations

import hashlib
import json
import resource
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from contracts.pii.finders import Finder, open_finder
from contracts.pii.finding import find_all
from contracts.pii.redaction import Redactor
from contracts.pii.tagged import TYPES
from tests.bench.report import Row
from tests.bench.trust_personal import Found, data, span_f1
from tests.chain import Chain

SENTENCES, TEST_SHARE = 3000, 0.25
CHINESE: dict[str, Any] = {
    "data.tagged": True,
    "split.test_data.tagged": True,
    "model.size": 1_048_576,
    "training.epochs": 4,
    "change.replaced": 0.5,
    "change.listed": 0.02,
    "cautions": [0.0],
}
LISTED = {"recall.PER": 0.936}  # with a list of words; what is reached without one is not known beforehand
ENGLISH: dict[str, Any] = {
    "split.valid_share": 0.05,
    "training.epochs": 25,
    "training.batch_size": 8,
    "model.size": 65_536,
    "change.replaced": 0.6,
    "change.listed": 0.0,
    "change.lowered": 0.1,
    "recall_weight": 1.0,
}


def taggers(home: Path) -> Iterator[Row]:
    """All of it."""
    yield from chinese_names(home / "msra")
    yield from english_types(home / "english", "text")
    yield from english_types(home / "templates", "template")


def trained(home: Path, files: Mapping[str, Path], settings: Mapping[str, Any]) -> tuple[Chain, float]:
    """A tagger of the files ``train`` and ``test``, and the seconds of processor that it took."""
    given = {**settings, "data.pii.text": "keep", "split.test_source": str(files["test"])}
    if "valid" in files:
        given["split.valid_source"] = str(files["valid"])
    chain = Chain(task="names", recipe="crf", home=home, source=str(files["train"]), overrides=given)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    chain.dataset()
    chain.candidate()
    return chain, resource.getrusage(resource.RUSAGE_SELF).ru_utime - before


def dictionary() -> str:
    """The words of jieba (MIT licence) where it is installed; "" elsewhere."""
    spec = find_spec("jieba")
    return str(Path(spec.origin).with_name("dict.txt")) if spec and spec.origin else ""


def finder_of(chain: Chain) -> Finder:
    found = open_finder(str(chain.bundle().path))
    assert found is not None
    return found


def chinese_names(home: Path) -> Iterator[Row]:
    """Persons, places and organisations in the last sentences of MSRA, both borders right; and what it costs."""
    with zipfile.ZipFile(data("ner-zh/dh_msra.zip")) as packed:
        blocks = [block for block in packed.read("dh_msra.txt").decode().split("\n\n") if "\t" in block]
    home.mkdir(parents=True, exist_ok=True)
    cut = len(blocks) - 2 * SENTENCES
    parts = {"train": blocks[:cut], "valid": blocks[cut:-SENTENCES], "test": blocks[-SENTENCES:]}
    files = {name: home / f"{name}.txt" for name in parts}
    for name, some in parts.items():
        files[name].write_text("\n\n".join(some))
    listed = {"words": dictionary(), **LISTED} if dictionary() else {}
    chain, seconds = trained(home, files, {**CHINESE, **listed})
    metrics, parameters = chain.evaluation()["metrics"], chain.bundle().document.parameters
    case = "MSRA, crf with a list of words" if listed else "MSRA, crf"
    yield Row(
        case=f"{case}: persons", contestant="fairlead", value=metrics["recall:PER"], unit="recall", goal=">= 0.93"
    )
    yield Row(case=f"{case}: persons", contestant="fairlead", value=metrics["precision:PER"], unit="precision")
    yield Row(case=f"{case}: persons", contestant="perceptron in numpy", value=0.883, unit="recall")
    yield Row(
        case=f"{case}: characters of persons left", contestant="fairlead", value=metrics["leaked:PER"], unit="share"
    )
    for kind in ("LOC", "ORG"):
        yield Row(case=f"{case}: {kind}", contestant="fairlead", value=metrics[f"recall:{kind}"], unit="recall")
    yield Row(case=f"{case}: all", contestant="fairlead", value=metrics["f1"], unit="F1")
    yield Row(case=f"{case}: all", contestant="perceptron in numpy", value=0.876, unit="F1")
    yield Row(case=f"{case}: from file to measured", contestant="fairlead", value=seconds, unit="s of one core")
    yield Row(case=f"{case}: weights", contestant="fairlead", value=parameters["weights"], unit="numbers")
    texts = [
        "".join(line.split("\t")[0] for line in block.splitlines() if "\t" in line) for block in blocks[-SENTENCES:]
    ]
    yield from speed("Chinese news", finder_of(chain), texts)


def english_types(home: Path, apart: str) -> Iterator[Row]:
    """F1 over all types of the test part, by patterns and tagger together; and what is left of what is labelled."""
    rows = json.loads(data("pii-en/presidio_synth_split.json").read_text())
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for row in rows:
        key = row["full_text"] if apart == "text" else str(row["template_id"])
        share = int.from_bytes(hashlib.sha256(f"english test {key}".encode()).digest()[:4], "big") / 2**32
        spans = [[one["start_position"], one["end_position"], one["entity_type"]] for one in row["spans"]]
        parts["test" if share < TEST_SHARE else "train"].append({"text": row["full_text"], "spans": spans})
    home.mkdir(parents=True, exist_ok=True)
    files = {name: home / f"{name}.jsonl" for name in parts}
    for name, some in parts.items():
        files[name].write_text("".join(json.dumps(one) + "\n" for one in some))
    chain, seconds = trained(home, files, ENGLISH)
    finder = finder_of(chain)
    texts = [one["text"] for one in parts["test"]]
    gold: list[list[Found]] = [[(TYPES[kind], a, b) for a, b, kind in one["spans"]] for one in parts["test"]]
    case = "English file" if apart == "text" else "English file, by template"
    for contestant, how in (("patterns", None), ("patterns and tagger", finder)):
        said = [[(s.kind.name, s.start, s.end) for s in some] for some in find_all(texts, finder=how)]
        goal = ">= 0.90" if how and apart == "text" else ""
        yield Row(case=f"{case}: 16 types", contestant=contestant, value=span_f1(gold, said), unit="F1", goal=goal)
        yield Row(case=f"{case}: labelled characters left", contestant=contestant, value=left(gold, said), unit="share")
    yield Row(case=f"{case}: from file to measured", contestant="fairlead", value=seconds, unit="s of one core")
    if apart == "text":
        yield from speed("English", finder, texts)


def left(gold: Sequence[Sequence[Found]], said: Sequence[Sequence[Found]]) -> float:
    """The share of labelled characters that nothing covers, of whatever kind."""
    signs = gone = 0
    for truth, some in zip(gold, said, strict=True):
        inside = {at for _, start, end in truth for at in range(start, end)}
        signs += len(inside)
        gone += len(inside - {at for _, start, end in some for at in range(start, end)})
    return gone / signs


def speed(what: str, finder: Finder, sentences: Sequence[str]) -> Iterator[Row]:
    """Milliseconds for 1,000 characters, with patterns alone and with the tagger, in one process."""
    whole = "\n".join(sentences)
    texts = [whole[at : at + 1000] for at in range(0, min(len(whole), 120_000) - 1000, 1000)]
    for contestant, redactor in (("patterns", Redactor("label")), ("and tagger", Redactor("label", finder=finder))):
        times = []
        for text in texts:
            start = perf_counter()
            redactor.redact(text)
            times.append(1000 * (perf_counter() - start))
        yield Row(case=f"redact 1,000 characters of {what}, p50", contestant=contestant, value=median(times), unit="ms")
