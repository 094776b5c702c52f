"""Folders of documents as rows of a data set: a row for each paragraph, and one for each question about them.

A folder may have ``labels.yaml``, which says who may read what, as patterns of paths with lists of labels: the last
pattern that fits a document counts; a document that none fits is everybody's. And ``questions.csv`` (or .jsonl) with
the columns question, answer (empty: nothing answers it), and, if it has them, evidence (words of the passage that
answers it), document, and labels (of who asks). Documents are refused one by one, by name and reason. Public question
sets are such folders too, see `pipelines.data.question_sets`.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from contracts.problems.answering import SEPARATOR
from pipelines.data.chunks import ROW, Chunk, Rejected, empty, text_format
from pipelines.data.document_blocks import Document, RefusedError
from pipelines.data.document_formats import KNOWN, MAX_BYTES, SUFFIXES, read_document
from pipelines.data.question_sets import PASSAGES, evidence_in, is_question_set, read_passages, read_question_set

if TYPE_CHECKING:
    from pipelines.task import Task

LABELS, QUESTIONS = "labels.yaml", ("questions.csv", "questions.jsonl", "questions.tsv")
TEXTS = ("id", "document", "title", "section", "labels", "text", "question", "answer", "evidence")
_CHUNK_ROWS, _CHUNK_CHARACTERS = 2_048, 8 << 20
_OF_QUESTIONS = ("question", "answer", "evidence", "document", "labels")


def takes_documents(task: Task, source: str) -> bool:
    """Whether a task reads documents, and the source is some: a folder of them, or one."""
    if not getattr(task, "documents", False):
        return False
    path = Path(source).expanduser()
    if path.is_dir():
        return any(one.suffix.lower() in KNOWN or one.name in PASSAGES for one in path.rglob("*"))
    return path.suffix.lower() in KNOWN or is_question_set(path)


def fingerprint(source: str, config: Any, report: Callable[..., None]) -> dict[str, Any]:
    """The source as one file of a dataset version: names and bytes of all files, and how they are read."""
    digest, size, number = hashlib.sha256(f"1|{config.documents.max_pages}".encode()), 0, 0
    for number, (name, path) in enumerate(_files(source), 1):
        size += _note(digest, name, path)
        if number % 200 == 0:
            report(number, None, files=number)
    return {"name": Path(source).expanduser().name, "bytes": size, "sha256": digest.hexdigest(), "rows": 0}


def read_documents(source: str, config: Any, known: dict[str, Any]) -> Iterator[Chunk]:
    """All paragraphs and questions as rows, in chunks of bounded memory; documents that are refused are rejected.

    Raises:
        PlatformError: the files are not those of the fingerprint `known` any more; ``labels.yaml`` or the questions are
            wrong; or there are no documents.
    """
    digest = hashlib.sha256(f"1|{config.documents.max_pages}".encode())
    files = list(_files(source))
    here = Path(source).expanduser()
    beside = here if here.is_dir() else here.parent
    if is_question_set(here):
        beside = here / "none"  # it has its own questions
    access = _Labels.read(beside / LABELS, [name for name, _ in files if not _is_beside(name)])
    batch, number, held = _Batch(), 0, 0
    for name, path in files:
        _note(digest, name, path)
        if is_question_set(path) and path == here:
            for row in read_question_set(path):
                number += 1
                if isinstance(row, Rejected):
                    batch.rejected.append(replace(row, row=number))
                else:
                    batch.add(number, **row)
                if batch.size >= _CHUNK_ROWS:
                    yield batch.chunk(number)
                    batch = _Batch()
            continue
        if _is_beside(name):
            continue
        try:
            document = _read(name, path, config.documents.max_pages)
        except RefusedError as err:
            number += 1
            batch.rejected.append(Rejected(number, "document", "", str(err), file=name))
            continue
        labels = access.of(name)
        for at, block in enumerate(document.blocks):
            number += 1
            held += len(block.text)
            batch.add(
                number, id=f"{name}#{at}", document=name, title=document.title, section=block.section,
                page=block.page or None, labels=labels, text=block.text,
            )  # fmt: skip
        if batch.size >= _CHUNK_ROWS or held >= _CHUNK_CHARACTERS:
            yield batch.chunk(number)
            batch, held = _Batch(), 0
    passages: dict[str, str] = {}
    for row in read_passages(beside, text_format(config.data)):
        number += 1
        passages[row["document"]] = row["text"]
        batch.add(number, **row)
        if batch.size >= _CHUNK_ROWS:
            yield batch.chunk(number)
            batch = _Batch()
    for at, row in enumerate(_questions(beside, config, passages)):
        number += 1
        batch.add(number, id=f"questions#{at}", **row)
    if batch.size:
        yield batch.chunk(number)
    if not number:
        raise empty(source)
    if digest.hexdigest() != known["sha256"]:
        raise PlatformError(
            f"{known['name']} changed while it was read", fix="run again when it is complete", code="bad_source"
        )
    known["rows"] = number


class _Batch:
    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name in (*TEXTS, "page", ROW)}
        self.rejected: list[Rejected] = []

    @property
    def size(self) -> int:
        return len(self._columns[ROW]) + len(self.rejected)

    def add(self, number: int, **values: Any) -> None:
        for name, column in self._columns.items():
            column.append(number if name == ROW else values.get(name))

    def chunk(self, through: int) -> Chunk:
        import pyarrow as pa

        kinds = dict.fromkeys(TEXTS, pa.string()) | {"page": pa.int64(), ROW: pa.int64()}
        columns = [pa.array(self._columns[name], kinds[name]) for name in kinds]
        return Chunk(pa.table(columns, names=list(kinds)), through, self.rejected)


@dataclass(frozen=True)
class _Labels:
    """Patterns of documents and the labels that each gives."""

    patterns: Mapping[str, tuple[str, ...]]

    @classmethod
    def read(cls, file: Path, names: list[str]) -> _Labels:
        """Those of a file, where it is there.

        Raises:
            PlatformError: it is none, or a pattern fits no document, which would leave open what it was meant for.
        """
        if not file.exists():
            return cls({})
        import yaml

        try:
            said = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        except (OSError, ValueError, yaml.YAMLError) as err:
            raise _bad_labels(file, str(err).splitlines()[0]) from err
        if not isinstance(said, dict):
            raise _bad_labels(file, f"it is a {type(said).__name__}, not a mapping")
        found = {}
        for pattern, given in said.items():
            labels = [given] if isinstance(given, str) else given
            if not isinstance(labels, list) or not all(isinstance(one, str) and one.strip() for one in labels):
                raise _bad_labels(file, f"{pattern}: expected a list of labels, got {given!r}")
            if any(SEPARATOR in one for one in labels):
                raise _bad_labels(file, f"{pattern}: a label may not have {SEPARATOR}")
            if not any(fnmatch.fnmatchcase(name, str(pattern)) for name in names):
                raise _bad_labels(file, f"{pattern} fits no document, such as {names[0] if names else '(none)'}")
            found[str(pattern)] = tuple(one.strip() for one in labels)
        return cls(found)

    def of(self, name: str) -> str:
        fitting = [labels for pattern, labels in self.patterns.items() if fnmatch.fnmatchcase(name, pattern)]
        return SEPARATOR.join(fitting[-1]) if fitting else ""


def _bad_labels(file: Path, detail: str) -> PlatformError:
    fix = 'write patterns of paths with the labels of who may read them, such as "hr/*": [hr, board]'
    return PlatformError(f"{file.name} is refused", detail=detail, fix=fix, code="bad_source", file=str(file))


def _files(source: str) -> Iterator[tuple[str, Path]]:
    """Names in a folder, with /, and paths, sorted; hidden ones are left out.

    Raises:
        PlatformError: ``code="bad_source"``: it is not there.
    """
    path = Path(source).expanduser()
    if path.is_file():
        yield path.name, path
        return
    if not path.is_dir():
        fix = f"give a folder of documents ({', '.join(SUFFIXES)}), or one"
        raise PlatformError(f"source not found: {source}", fix=fix, code="bad_source")
    found = sorted((one.relative_to(path).as_posix(), one) for one in path.rglob("*") if one.is_file())
    yield from ((name, one) for name, one in found if not any(part.startswith(".") for part in name.split("/")))


def _is_beside(name: str) -> bool:
    return name == LABELS or name in QUESTIONS or name in PASSAGES


def _note(digest: Any, name: str, path: Path) -> int:
    body, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while part := stream.read(1 << 22):
            body.update(part)
            size += len(part)
    digest.update(f"{name}\0{body.hexdigest()}\0".encode("utf-8", "surrogatepass"))
    return size


def _read(name: str, path: Path, max_pages: int) -> Document:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise RefusedError("has a name that is not UTF-8: rename it") from None
    if path.stat().st_size > MAX_BYTES:
        raise RefusedError(f"is larger than {MAX_BYTES >> 20} MB")
    try:
        content = path.read_bytes()
    except OSError as err:
        raise RefusedError(f"cannot be read: {err.strerror or err}") from None
    return read_document(name, content, max_pages)


def _questions(folder: Path, config: Any, passages: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The questions beside the documents.

    Raises:
        PlatformError: ``code="bad_source"``, naming the row or the column.
    """
    from pipelines.data.sources import column_names, read_chunks

    file = next((folder / name for name in QUESTIONS if (folder / name).exists()), None)
    if file is None:
        return
    form = text_format(config.data)
    names = column_names(file, form)
    if absent := [name for name in ("question", "answer") if name not in names]:
        raise PlatformError(
            f"{file.name} has no column {absent[0]!r}",
            detail=f"it has: {', '.join(names)}",
            fix="give it the columns question and answer; an empty answer says that nothing answers the question",
            code="bad_source",
            column=absent[0],
        )
    for chunk in read_chunks(file, names, form):
        if chunk.rejected:
            bad = chunk.rejected[0]
            raise PlatformError(
                f"{file.name}: row {bad.row} cannot be read",
                detail=bad.reason, fix="correct the row", code="bad_source", row=bad.row,
            )  # fmt: skip
        for row in chunk.table.to_pylist():
            found = {name: None if row.get(name) is None else str(row[name]) for name in _OF_QUESTIONS}
            if not (found["question"] or "").strip():
                raise PlatformError(
                    f"{file.name}: row {row[ROW]} has no question", fix="correct the row", code="bad_source",
                    row=row[ROW], column="question",
                )  # fmt: skip
            if (passage := str(row.get("passage") or "").strip()) and not found["document"]:
                if passage not in passages:
                    raise PlatformError(
                        f"{file.name}: row {row[ROW]} names a passage that is not there: {passage}",
                        fix="correct its id, or leave it empty", code="bad_source", row=row[ROW], column="passage",
                    )  # fmt: skip
                if (found["answer"] or "").strip():
                    found["document"] = passage
                    found["evidence"] = found["evidence"] or evidence_in(passages, found)
            yield found
