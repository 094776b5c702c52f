"""How well personal data is found: made-up Chinese sentences, an English file with labelled spans, Chinese news.

Spans count as found when kind and borders are right (Chinese), or kind is right and half of both is shared (English).
The words that stand beside telephone numbers were chosen by somebody who had seen the English file.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from contracts.pii.finding import find
from contracts.pii.redaction import Redactor
from tests.bench.report import Row
from tests.pii_samples import ordinary, samples

SEED, EACH, SENTENCES = 101, 1000, 3000
ENGLISH = {
    "PHONE_NUMBER": "phone",
    "EMAIL_ADDRESS": "email",
    "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip",
    "CREDIT_CARD": "card",
    "US_SSN": "us_ssn",
    "STREET_ADDRESS": "address",
    "PERSON": "name",
}
NUMBERS = frozenset({"phone", "email", "iban", "ip", "card", "us_ssn"})
Found = tuple[str, int, int]


def data(name: str) -> Path:
    file = Path(os.environ.get("FAIRLEAD_TEST_DATA", "")) / name
    if not os.environ.get("FAIRLEAD_TEST_DATA") or not file.exists():
        sys.exit(f"bench-trust needs real data: set FAIRLEAD_TEST_DATA to the folder that holds {name}")
    return file


def found_in(text: str) -> list[Found]:
    return [(span.kind.name, span.start, span.end) for span in find(text)]


def personal(home: Path) -> Iterator[Row]:
    """All of it."""
    yield from chinese()
    yield from english()
    yield from news_names()
    yield from speed()


def chinese() -> Iterator[Row]:
    """Recall by kind on sentences that are made up, and how often ordinary numbers are taken for somebody's."""
    hit, total = Counter[str](), Counter[str]()
    for one in samples(SEED, EACH):
        total[one.kind] += 1
        hit[one.kind] += (one.kind, one.start, one.end) in found_in(one.text)
    for kind in total:
        recall = hit[kind] / total[kind]
        yield Row(case=f"Chinese, made up: {kind}", contestant="fairlead", value=recall, unit="recall", goal=">= 0.95")
    wrong = sum(bool(found_in(text)) for text in ordinary(SEED, 10 * EACH))
    yield Row(case="ordinary numbers taken for personal", contestant="fairlead", value=wrong / 10 / EACH, unit="share")


def english() -> Iterator[Row]:
    """F1 over all types of the file and over those with a form; and what is left of these after redaction."""
    rows = json.loads(data("pii-en/presidio_synth_split.json").read_text())
    gold = [
        [
            (ENGLISH.get(s["entity_type"], s["entity_type"]), s["start_position"], s["end_position"])
            for s in row["spans"]
        ]
        for row in rows
    ]
    texts = [row["full_text"] for row in rows]
    given = [found_in(text) for text in texts]
    forms = [[[one for one in each if one[0] in NUMBERS] for each in side] for side in (gold, given)]
    yield Row(case="English file, all 16 types", contestant="patterns", value=span_f1(gold, given), unit="F1")
    yield Row(
        case="English file, numbers and addresses of mail", contestant="fairlead", value=span_f1(*forms), unit="F1"
    )
    redactor = Redactor("label")
    kept = [
        text[start:end] in redactor.redact(text).text
        for text, spans in zip(texts, forms[0], strict=True)
        for _, start, end in spans
    ]
    yield Row(case="the same, left after redaction", contestant="fairlead", value=sum(kept) / len(kept), unit="share")


def span_f1(gold: Sequence[Sequence[Found]], given: Sequence[Sequence[Found]]) -> float:
    """F1 of spans: same kind, and at least half of their union shared."""
    hit = 0
    for truth, said in zip(gold, given, strict=True):
        free = list(said)
        for kind, start, end in truth:
            for one in free:
                shared = min(end, one[2]) - max(start, one[1])
                if one[0] == kind and shared / (max(end, one[2]) - min(start, one[1])) >= 0.5:
                    hit += 1
                    free.remove(one)
                    break
    return 2 * hit / (sum(map(len, gold)) + sum(map(len, given)))


def news_names() -> Iterator[Row]:
    """Names of people in the last sentences of MSRA, by rules that need words beside them."""
    with zipfile.ZipFile(data("ner-zh/dh_msra.zip")) as packed:
        blocks = packed.read("dh_msra.txt").decode().split("\n\n")[-SENTENCES - 1 :]
    hit = total = said = 0
    for block in blocks:
        pairs = [line.split("\t") for line in block.splitlines() if "\t" in line]
        text, tags = "".join(sign for sign, _ in pairs), [tag for _, tag in pairs]
        truth = set(_persons(tags))
        given = {(start, end) for kind, start, end in found_in(text) if kind == "name"}
        hit, total, said = hit + len(truth & given), total + len(truth), said + len(given)
    yield Row(case="MSRA, persons", contestant="patterns", value=hit / total, unit="recall")
    yield Row(case="MSRA, persons", contestant="patterns", value=hit / max(said, 1), unit="precision")


def _persons(tags: Sequence[str]) -> Iterator[tuple[int, int]]:
    start = -1
    for at, tag in enumerate([*tags, "O"]):
        if start >= 0 and tag != "I-PER":
            yield start, at
            start = -1
        if tag == "B-PER":
            start = at


def speed() -> Iterator[Row]:
    """Milliseconds for texts of 1,000 characters, in one process."""
    lines = [*(one.text for one in samples(SEED, 40)), *ordinary(SEED, 400)]
    texts = ["\n".join(lines[at : at + 80])[:1000] for at in range(0, len(lines) - 80, 10)]
    redactor, times = Redactor("label"), []
    for text in texts:
        start = time.perf_counter()
        redactor.redact(text)
        times.append(1000 * (time.perf_counter() - start))
    assert all(len(text) == 1000 for text in texts)
    yield Row(case="redact 1,000 characters, p50", contestant="fairlead", value=median(times), unit="ms", goal="<= 5")
