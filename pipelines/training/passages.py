"""Paragraphs of documents to the passages that are searched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from contracts.passages import joined, passages
from contracts.problems.answering import Passage, listed
from contracts.texts import words

if TYPE_CHECKING:
    import pandas as pd


def passages_of(paragraphs: pd.DataFrame, most: int) -> list[Passage]:
    """The passages of all documents, in their order; each keeps its document, headings, page and labels.

    Args:
        paragraphs: columns document, title, section, page, labels and text.
        most: words of a passage, but for one long sentence.
    """
    found: list[Passage] = []
    for document, rows in paragraphs.groupby("document", sort=True):
        for number, (row, text) in enumerate(_joined(_records(rows), most)):
            found.append(
                Passage(
                    id=f"{document}#{number}",
                    document=str(document),
                    title=row["title"],
                    section=row["section"],
                    page=int(row["page"]),
                    labels=listed(row["labels"]),
                    score=0.0,
                    text=text,
                )
            )
    return found


def searched(passage: Passage) -> str:
    """What a passage is found by: its headings and its text."""
    headings = passage.section if passage.title in passage.section else f"{passage.title}\n{passage.section}"
    return f"{headings}\n{passage.text}"


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]


def _joined(rows: list[dict[str, Any]], most: int) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Texts of about `most` words, of paragraphs that have the same headings and page."""
    held: list[str] = []
    size = 0
    last: dict[str, Any] | None = None
    for row in rows:
        if last is not None and (row["section"], row["page"]) != (last["section"], last["page"]) and held:
            yield last, "\n".join(held)
            held, size = [], 0
        last = row
        for part in _parts(row["text"], most):
            count = len(words(part))
            if held and size + count > most:
                yield row, "\n".join(held)
                held, size = [], 0
            held.append(part)
            size += count
    if held and last is not None:
        yield last, "\n".join(held)


def _parts(text: str, most: int) -> Iterator[str]:
    """A paragraph, or, where it is too long, its sentences in groups; a sentence that is too long itself, in pieces."""
    if len(words(text)) <= most:
        yield text
        return
    held: list[str] = []
    size = 0
    for sentence in passages(text, "sentence"):
        for piece in _pieces(sentence, most):
            count = len(words(piece))
            if held and size + count > most:
                yield joined(held, "sentence")
                held, size = [], 0
            held.append(piece)
            size += count
    if held:
        yield joined(held, "sentence")


def _pieces(sentence: str, most: int) -> Iterator[str]:
    """A sentence in pieces of at most twice as many words, which only tables and lists without marks need."""
    if len(words(sentence)) <= 2 * most:
        yield sentence
        return
    parts = sentence.split(" ") if " " in sentence else list(sentence)
    for at in range(0, len(parts), most):
        yield (" " if " " in sentence else "").join(parts[at : at + most])
