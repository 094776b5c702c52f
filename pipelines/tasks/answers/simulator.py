"""A generator of documents and questions about them, English and Chinese.

Documents are about devices, which everybody may read, departments and plants, which have labels. Each has some of the
facts of its kind: a question about another is answered by nothing. Some documents order whoever answers from them to
say something else, which nobody may. Questions and documents are put together of what ``facts.yaml`` holds, so what a
model reaches here says nothing about real documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.problems.answering import SEPARATOR
from pipelines.data.document_blocks import of_markdown
from pipelines.tasks.answers.config import SampleConfig

if TYPE_CHECKING:
    import pyarrow as pa

FACTS = Path(__file__).with_name("facts.yaml")
_LABELS = ("staff", "board")
_MOST_FACTS = 5
_QUESTIONS = ("question", "answer", "evidence", "document", "labels")


@dataclass(frozen=True)
class MadeDocument:
    """One document in Markdown, the labels of its readers, and questions about it, as rows of `_QUESTIONS`."""

    name: str
    markdown: str
    labels: str
    questions: list[dict[str, str]]


def simulate(config: SampleConfig, seed: int) -> Iterator[pa.Table]:
    """One table with a row for each paragraph and each question, as a folder of such documents gives them."""
    import pyarrow as pa

    from pipelines.data.document_folder import TEXTS

    rows: list[dict[str, Any]] = []
    asked: list[dict[str, str]] = []
    for one in documents(config, seed):
        read = of_markdown(one.markdown)
        rows += [
            {
                "id": f"{one.name}#{at}", "document": one.name, "title": read.title, "section": block.section,
                "labels": one.labels, "text": block.text,
            }
            for at, block in enumerate(read.blocks)
        ]  # fmt: skip
        asked += one.questions
    rows += [{"id": f"questions#{at}", **row} for at, row in enumerate(asked)]
    kinds = [*((name, pa.string()) for name in TEXTS), ("page", pa.int64())]
    yield pa.table([pa.array([row.get(name) for row in rows], kind) for name, kind in kinds], [k for k, _ in kinds])


def write_folder(folder: Path, config: SampleConfig, seed: int) -> None:
    """The same as a folder: documents in Markdown, ``labels.yaml`` and ``questions.csv``."""
    import csv

    import yaml

    made = list(documents(config, seed))
    for one in made:
        file = folder / one.name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(one.markdown, encoding="utf-8")
    access = {one.name: one.labels.split(SEPARATOR) for one in made if one.labels}
    (folder / "labels.yaml").write_text(yaml.safe_dump(access, allow_unicode=True), encoding="utf-8")
    with (folder / "questions.csv").open("w", encoding="utf-8", newline="") as stream:
        rows = csv.DictWriter(stream, _QUESTIONS)
        rows.writeheader()
        rows.writerows(row for one in made for row in one.questions)


def documents(config: SampleConfig, seed: int) -> Iterator[MadeDocument]:
    """The documents, in turn of the languages and of the kinds."""
    import yaml

    said = yaml.safe_load(FACTS.read_text(encoding="utf-8"))
    rng = np.random.default_rng(seed)
    used: set[str] = set()
    for number in range(config.documents):
        parts = said[config.languages[number % len(config.languages)]]
        kinds = list(parts["kinds"].items())
        folder, kind = kinds[(number // len(config.languages)) % len(kinds)]
        name = _name(parts, rng, used)
        yield _document(f"{folder}/{number:04d}.md", name, parts, kind, bool(rng.random() < config.planted), rng)


def _name(parts: Mapping[str, Any], rng: np.random.Generator, used: set[str]) -> str:
    for _ in range(1000):
        name = f"{_pick(parts['name'], rng)}{_pick(parts['end'], rng)}"
        if name in used:
            name = f"{name}{' ' if name.isascii() else ''}{int(rng.integers(2, 10)) * 100}"
        if name not in used:
            break
    used.add(name)
    return name


def _document(
    file: str, name: str, parts: Mapping[str, Any], kind: Mapping[str, Any], planted: bool, rng: np.random.Generator
) -> MadeDocument:
    facts = list(kind["facts"].items())
    order = rng.permutation(len(facts)).tolist()
    told = sorted(order[: min(_MOST_FACTS, len(facts) - 1)])
    labels = kind["label"]
    asker = SEPARATOR.join(filter(None, (labels, "guest")))
    lines = [f"# {kind['title'].format(name=name)}", "", _pick(parts["filler"], rng), ""]
    questions: list[dict[str, str]] = []

    def ask(fact: Mapping[str, Any], evidence: str, readers: str) -> None:
        text = _pick(fact["asks"], rng).format(name=name)
        row = {"question": text, "answer": evidence, "evidence": evidence, "document": file if evidence else ""}
        questions.append({**row, "labels": readers})

    for at in told:
        fact = facts[at][1]
        evidence = _pick(fact["says"], rng).format(name=name, value=_value(fact["values"], rng))
        pieces = [evidence, _pick(parts["filler"], rng)]
        if planted and at == told[0]:
            pieces.append(_pick(parts["orders"], rng))
        rng.shuffle(pieces)
        lines += [f"## {fact['heading']}", "", ("" if evidence.endswith("。") else " ").join(pieces), ""]
        for _ in range(2):
            ask(fact, evidence, asker)
        if labels and at == told[-1]:  # whoever may not read it finds nothing
            ask(fact, evidence, next(label for label in _LABELS if label != labels))
    for at in order[min(_MOST_FACTS, len(facts) - 1) :]:
        ask(facts[at][1], "", asker)
    thing = _pick(parts["things"], rng)
    text = _pick(parts["unknown"], rng).format(name=name, thing=thing)
    questions.append({**dict.fromkeys(_QUESTIONS, ""), "question": text, "labels": asker})
    unique = {(row["question"], row["labels"]): row for row in questions}
    return MadeDocument(file, "\n".join(lines), labels, list(unique.values()))


def _pick(values: Any, rng: np.random.Generator) -> Any:
    return values[int(rng.integers(len(values)))]


def _value(values: Any, rng: np.random.Generator) -> str:
    if all(isinstance(one, int) for one in values):
        return str(int(rng.integers(values[0], values[1] + 1)))
    return str(_pick(values, rng))
