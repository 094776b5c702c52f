"""Public question sets as documents with questions, for tasks that answer from documents.

Two layouts. A JSON file as of SQuAD (1.1 and 2.0), CMRC 2018 and DuReader-robust: articles with paragraphs, each with
its context and questions (``qas``). And a folder with ``passages`` (.csv, .jsonl, .tsv: id, text, and perhaps title
and labels) beside ``questions``, whose column ``passage`` names the one that answers. A context or a passage is a
document of its own; the evidence is the sentence with the first answer; a question without one is answered by nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from contracts.errors import PlatformError
from pipelines.data.chunks import ROW, Rejected, TextFormat
from pipelines.data.sources import column_names, read_chunks

PASSAGES = ("passages.csv", "passages.jsonl", "passages.tsv")
MAX_BYTES = 512 << 20  # of one JSON file, which is read as a whole
_HEAD = 1 << 16
_SENTENCE = re.compile(r"[^.!?。！？；\n]*(?:[.!?](?!\s|$)[^.!?。！？；\n]*)*[.!?。！？；\n]?")
_FIX = (
    "give a JSON file with data, paragraphs, context and qas, as SQuAD has them; or passages.csv beside questions.csv"
)


def is_question_set(path: Path) -> bool:
    """Whether a file is JSON with paragraphs and their questions, by its beginning."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    return b'"qas"' in head and (b'"context"' in head or b'"context_text"' in head)


def read_question_set(path: Path) -> Iterator[dict[str, Any] | Rejected]:
    """Rows of paragraphs, and of the questions about each; a question whose answer is not in its context is refused.

    Raises:
        PlatformError: ``code="bad_source"``: it is no JSON, or not of this layout, with the place.
    """
    if path.stat().st_size > MAX_BYTES:
        raise _bad(path, f"it is larger than {MAX_BYTES >> 20} MB")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as err:
        raise _bad(path, f"it is no JSON in UTF-8: {err}") from err
    articles = said.get("data") if isinstance(said, dict) else said
    if not isinstance(articles, list):
        raise _bad(path, "it has no list of articles")
    number = 0
    seen: dict[str, str] = {}
    for at, article in enumerate(articles):
        paragraphs = article.get("paragraphs", [article]) if isinstance(article, dict) else None
        if not isinstance(paragraphs, list):
            raise _bad(path, f"article {at} has no paragraphs")
        for place, paragraph in enumerate(paragraphs):
            where = f"article {at}, paragraph {place}"
            context = _text(paragraph, "context", "context_text")
            if context is None or not isinstance(paragraph.get("qas"), list):
                raise _bad(path, f"{where} has no context with qas")
            title = str(article.get("title") or where)
            new, document = context not in seen, seen.setdefault(context, f"{title}#{len(seen)}")
            if new and context.strip():
                number += 1
                yield {"id": document, "document": document, "title": title, "text": context}
            for asked in paragraph["qas"]:
                number += 1
                yield _question(path, number, where, asked, context, document)


def read_passages(folder: Path, form: TextFormat) -> Iterator[dict[str, Any]]:
    """Rows of the passages of a folder; none where it has no such file.

    Raises:
        PlatformError: ``code="bad_source"``: a column is missing; a row cannot be read, has no text, or another's id.
    """
    file = next((folder / name for name in PASSAGES if (folder / name).exists()), None)
    if file is None:
        return
    names = column_names(file, form)
    if absent := [name for name in ("id", "text") if name not in names]:
        raise _bad(file, f"it has no column {absent[0]!r}, only: {', '.join(names)}")
    seen: set[str] = set()
    for chunk in read_chunks(file, names, form):
        if chunk.rejected:
            raise _bad(file, f"row {chunk.rejected[0].row} cannot be read: {chunk.rejected[0].reason}")
        for row in chunk.table.to_pylist():
            name, text = (str(row[one]).strip() if row[one] is not None else "" for one in ("id", "text"))
            if not name or not text or name in seen:
                raise _bad(
                    file, f"row {row[ROW]} has {'an id of a row before' if name in seen else 'no id or no text'}"
                )
            seen.add(name)
            more = {one: str(row[one]) for one in ("title", "labels") if row.get(one) is not None}
            yield {"id": f"passage {name}", "document": name, "text": text, **more}


def evidence_in(passages: Mapping[str, str], row: Mapping[str, str | None]) -> str | None:
    """Words of the passage that answers: the sentence with the answer, or, where none has it, the first one."""
    text, answer = passages[row["document"] or ""], (row["answer"] or "").strip()
    first = next(one[0].strip() for one in _SENTENCE.finditer(text) if one[0].strip())
    return (answered(answer, text) or first) if answer else None


def answered(answer: str, text: str, start: int | None = None) -> str | None:
    """The sentence of a text that has an answer, the one at `start` if it stands there; None: it has none."""
    if start is None or text[start : start + len(answer)] != answer:
        start = text.find(answer)
    if start < 0:
        return None
    end = start + len(answer)
    found = [one.span() for one in _SENTENCE.finditer(text) if one.start() < end and one.end() > start]
    return text[found[0][0] : found[-1][1]].strip()


def _question(path: Path, number: int, where: str, asked: Any, context: str, document: str) -> Any:
    question = _text(asked, "question", "query_text")
    if question is None or not question.strip():
        raise _bad(path, f"{where} has qas without a question")
    name = str(asked.get("id") or asked.get("query_id") or number)
    row = {"id": f"question {name}", "question": question, "answer": "", "evidence": None, "document": None}
    answers = asked.get("answers")
    if asked.get("is_impossible") or not answers:
        return row
    first: Any = answers[0] if isinstance(answers, list) else answers
    given: Mapping[str, Any] = first if isinstance(first, dict) else {"text": first}
    answer, start = given.get("text"), given.get("answer_start")
    if not isinstance(answer, str) or not answer.strip():
        return Rejected(number, "answers", "", f"question {name} has an answer without a text")
    evidence = answered(answer, context, start if isinstance(start, int) and start >= 0 else None)
    if evidence is None:
        return Rejected(number, "answers", answer, f"question {name} has an answer that is not in its context")
    return {**row, "answer": answer, "evidence": evidence, "document": document}


def _text(found: Any, *names: str) -> str | None:
    given = next((found[name] for name in names if name in found), None) if isinstance(found, dict) else None
    return given if isinstance(given, str) else None


def _bad(path: Path, detail: str) -> PlatformError:
    return PlatformError(f"no question set: {path.name}", detail=detail, fix=_FIX, code="bad_source", file=str(path))
