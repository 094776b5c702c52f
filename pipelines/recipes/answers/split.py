"""Questions to what the judge learns from, what its threshold is chosen by, and what is measured."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.errors import PlatformError
from contracts.problems.answering import listed
from contracts.texts import language
from pipelines.evaluation.answering import GIVEN, MADE, Wanted, wanted_text

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from pipelines.recipes.answers.settings import AnswersConfig

PARAGRAPHS = "paragraphs"
_COLUMNS = ("document", "title", "section", "page", "labels", "text")
ANSWERED, NOTHING, FORBIDDEN = "answered", "nothing answers it", "may not be read"


def split_questions(frame: pd.DataFrame, config: AnswersConfig) -> dict[str, pd.DataFrame]:
    """``train``, ``valid`` and ``test`` have a row for each question, ``paragraphs`` one for each paragraph.

    Raises:
        PlatformError: there are no paragraphs, a question names a document that is not there, or the words that answer
            it are nowhere.
    """
    paragraphs, asked, made = _paragraphs(frame), _questions(frame), GIVEN
    if not len(asked) and config.questions.made:
        from pipelines.training.made_questions import made_questions

        asked, made = made_questions(paragraphs, config.questions.made, config.seed), MADE
    if not len(asked):
        raise PlatformError(
            "there are no questions to measure answers by",
            fix="put questions.csv beside the documents, or let some be made: --set questions.made=300",
            code="empty_split",
        )
    rows = _rows(asked, paragraphs, made)
    parts = _parts(rows, config)
    names, rows = ("train", "valid", "test"), rows.drop(columns="_group")
    return {**{name: rows[parts == name].reset_index(drop=True) for name in names}, PARAGRAPHS: paragraphs}


def left_out(frame: pd.DataFrame) -> Mapping[str, Any]:
    """Why rows are in no part, a mask by reason."""
    asked = _has(frame, "question")
    labels = frame["labels"].fillna("").astype(str)
    again = asked & frame.assign(labels=labels).duplicated(["question", "labels"]).to_numpy()
    return {
        "the question is asked before, with the same labels": again,
        "the row has neither text nor question": ~asked & ~_has(frame, "text"),
    }


def _has(frame: pd.DataFrame, name: str) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = frame[name].fillna("").astype(str).str.strip().ne("").to_numpy(dtype=bool)
    return found


def _paragraphs(frame: pd.DataFrame) -> pd.DataFrame:
    rows = frame.loc[_has(frame, "text") & ~_has(frame, "question")]
    if not len(rows):
        raise PlatformError(
            "there are no documents: no row has a text",
            fix="give a folder of documents, or name the column of texts: --set data.columns.text=NAME",
            code="empty_split",
        )
    made = rows[list(_COLUMNS)].copy()
    made["document"] = made["document"].fillna(rows["id"]).astype(str)
    for name in ("title", "section", "labels", "text"):
        made[name] = made[name].fillna("").astype(str)
    made["title"] = made["title"].where(made["title"] != "", made["document"])
    made["page"] = made["page"].fillna(0).astype(np.int64)
    mixed = made.groupby("document")["labels"].nunique()
    if len(wrong := mixed[mixed > 1]):
        raise PlatformError(
            f"document {wrong.index[0]!r} has paragraphs with different labels",
            fix="give all rows of a document the same labels, or make it two documents",
            code="bad_label",
            column="labels",
        )
    return made.reset_index(drop=True)


def _questions(frame: pd.DataFrame) -> pd.DataFrame:
    rows = frame.loc[_has(frame, "question"), ["id", "question", "answer", "evidence", "document", "labels"]].copy()
    for name in rows.columns:
        rows[name] = rows[name].fillna("").astype(str)
    found: pd.DataFrame = rows.drop_duplicates(["question", "labels"]).reset_index(drop=True)
    return found


def _rows(asked: pd.DataFrame, paragraphs: pd.DataFrame, made: str) -> pd.DataFrame:
    """The inputs, the label as JSON (see `Wanted`), slices, and ``_group``: what stays in one part."""
    import pandas as pd

    of = paragraphs.groupby("document")
    texts = {str(name): wanted_text(" ".join(rows["text"])) for name, rows in of}
    labels = {str(name): listed(rows["labels"].iloc[0]) for name, rows in of}
    everything = list(texts.items())
    rows: list[dict[str, Any]] = []
    for row in asked.to_dict("records"):
        one = {str(name): value for name, value in row.items()}
        wanted, kind = Wanted(), NOTHING
        if one["answer"].strip():
            evidence = one["evidence"].strip() or one["answer"].strip()
            document = _document(one, evidence, texts, everything)
            kind = ANSWERED
            if labels[document] and set(labels[document]).isdisjoint(listed(one["labels"])):
                kind = FORBIDDEN
            else:
                wanted = Wanted(answer=one["answer"].strip(), evidence=evidence, document=document)
            group = f"{document}\x1f{evidence}"
        else:
            group = f"\x1f{one['question']}"
        rows.append({
            "question": one["question"], "labels": one["labels"], "k": np.nan, "id": one["id"],
            "label": wanted.text(), "slice_kind": kind, "slice_questions": made,
            "slice_language": language(one["question"]), "_group": group,
            "row_key": f"question\x1f{one['question']}\x1f{one['labels']}",
        })  # fmt: skip
    return pd.DataFrame(rows)


def _document(
    one: Mapping[str, str], evidence: str, texts: Mapping[str, str], everything: Sequence[tuple[str, str]]
) -> str:
    """The document that has the evidence of a question.

    Raises:
        PlatformError: ``code="bad_label"``.
    """
    named, words = one["document"].strip(), wanted_text(evidence)
    if named and named not in texts:
        raise PlatformError(
            f"question {one['id']} is about document {named!r}, which is not there",
            detail=f"documents there: {', '.join(list(texts)[:5])}{', ...' if len(texts) > 5 else ''}",
            fix="correct the name in the column document, or leave it empty",
            code="bad_label",
            column="document",
        )
    found = named if named and words in texts[named] else ""
    if not named:
        found = next((name for name, text in everything if words in text), "")
    if not found:
        where = f"document {named!r}" if named else "any document"
        raise PlatformError(
            f"question {one['id']}: its evidence is not in {where}",
            detail=f"{evidence[:80]!r}",
            fix="put words of the document in the column evidence as they stand there; an empty answer says that "
            "nothing answers the question",
            code="bad_label",
            column="evidence",
        )
    return found


def _parts(rows: pd.DataFrame, config: AnswersConfig) -> NDArray[Any]:
    """By a hash of the group; each part gets one at least of each kind that has three groups."""
    settings = config.questions
    made = np.full(len(rows), "train", dtype=object)
    for kind in sorted(rows["slice_kind"].unique()):
        at = np.flatnonzero((rows["slice_kind"] == kind).to_numpy())
        groups = rows["_group"].to_numpy()[at]
        names = sorted(set(groups), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        test = max(1, round(settings.test_share * len(names))) if len(names) > 1 else 0
        valid = max(1, round(settings.valid_share * (len(names) - test))) if len(names) > 2 else 0
        part = dict.fromkeys(names, "train")
        part |= dict.fromkeys(names[:test], "test") | dict.fromkeys(names[test : test + valid], "valid")
        made[at] = [part[name] for name in groups]
    return made
