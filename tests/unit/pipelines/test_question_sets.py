"""Public question sets in their layouts: what becomes a document, a question, its evidence, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.errors import PlatformError
from pipelines.data.document_folder import fingerprint, read_documents, takes_documents
from pipelines.data.question_sets import answered
from pipelines.tasks import get_task, recipe_config

TASK = get_task("answers")
CONFIG: Any = recipe_config(TASK, "words", {})
HEATERS = "The Vela heater was made in Lund. It weighs 4.5 kg and hangs on two hooks. Its warranty is 24 months."
LAMPS = "阿洛灯在青石镇生产。它的保修期是三年。它用两节电池。"


def squad(*questions: Any, context: str = HEATERS, **more: Any) -> dict[str, Any]:
    return {"version": "v2.0", "data": [{"title": "Heaters", "paragraphs": [{"context": context, "qas": questions}]}]}


def asked(question: str, answer: str = "", start: int | None = None, **more: Any) -> dict[str, Any]:
    answers = [{"text": answer} | ({} if start is None else {"answer_start": start})] if answer else []
    return {"question": question, "id": question[:9], "answers": answers, "is_impossible": not answer, **more}


def read(path: Path) -> tuple[list[dict[str, Any]], list[Any]]:
    assert takes_documents(SimpleNamespace(documents=True), str(path))
    known = fingerprint(str(path), CONFIG, lambda *a, **m: None)
    chunks = list(read_documents(str(path), CONFIG, known))
    rows = [row for chunk in chunks for row in chunk.table.to_pylist()]
    rejected = [one for chunk in chunks for one in chunk.rejected]
    assert known["rows"] == len(rows) + len(rejected)
    return rows, rejected


def wanted(rows: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Question, evidence and document, as the task makes them; a row for each question of any part."""
    import pandas as pd

    frame = pd.DataFrame(rows).drop(columns="_row")
    parts = TASK.split(frame, CONFIG)
    found = []
    for name in ("train", "valid", "test"):
        for row in parts[name].to_dict("records"):
            label = json.loads(row["label"])
            found.append((row["question"], label.get("evidence", ""), label.get("document", "")))
    return sorted(found)


def test_a_file_of_squad_gives_documents_and_questions(tmp_path: Path) -> None:
    file = tmp_path / "dev.json"
    lund, weight = HEATERS.index("Lund"), HEATERS.index("4.5 kg")
    questions = (
        asked("Where was it made?", "Lund", lund),
        asked("What does it weigh?", "4.5 kg", weight),
        asked("How long is the warranty?", "24 months", 3),  # a wrong place: it is looked for
        asked("Who painted it?"),
        asked("How tall is it?", "two metres", 5),
    )
    file.write_text(json.dumps(squad(*questions)))
    rows, rejected = read(file)
    assert [(row["document"], row["title"], row["text"]) for row in rows if row["text"]] == [
        ("Heaters#0", "Heaters", HEATERS)
    ]
    assert [one.reason for one in rejected] == ["question How tall  has an answer that is not in its context"]
    assert wanted(rows) == sorted([
        ("Where was it made?", "The Vela heater was made in Lund.", "Heaters#0"),
        ("What does it weigh?", "It weighs 4.5 kg and hangs on two hooks.", "Heaters#0"),
        ("How long is the warranty?", "Its warranty is 24 months.", "Heaters#0"),
        ("Who painted it?", "", ""),
    ])  # fmt: skip


def test_an_answer_that_stands_twice_is_where_the_set_says() -> None:
    assert answered("24", "It has 24 hooks. It costs 24.50 now! 24?", 26) == "It costs 24.50 now!"
    assert answered("24", "It has 24 hooks. It costs 24.50 now! 24?", None) == "It has 24 hooks."
    assert (
        answered("hooks. It costs", "It has 24 hooks. It costs 24.50 now! 24?")
        == "It has 24 hooks. It costs 24.50 now!"
    )


def test_a_context_that_stands_twice_is_one_document(tmp_path: Path) -> None:
    file, found = tmp_path / "dev.json", squad(asked("Where was it made?", "Lund"))
    found["data"] += [{"title": "Lamps", "paragraphs": [{"context": LAMPS, "qas": []}]}, *found["data"]]
    file.write_text(json.dumps(found))
    assert [row["document"] for row in read(file)[0] if row["text"]] == ["Heaters#0", "Lamps#1"]


def test_cmrc_names_its_members_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "trial.json"
    qas = [
        {"query_id": "Q1", "query_text": "保修期多长？", "answers": ["三年", "3年"]},
        {"query_id": "Q2", "query_text": "在哪里生产？", "answers": ["青石镇"]},
    ]
    file.write_text(
        json.dumps([{"context_id": "C1", "context_text": LAMPS, "title": "灯", "qas": qas}], ensure_ascii=False)
    )
    rows, rejected = read(file)
    assert not rejected
    assert wanted(rows) == [
        ("保修期多长？", "它的保修期是三年。", "灯#0"),
        ("在哪里生产？", "阿洛灯在青石镇生产。", "灯#0"),
    ]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_passages_beside_questions_are_documents_that_questions_name(tmp_path: Path, kind: str) -> None:
    passages = [{"id": "p1", "text": HEATERS, "labels": "hr"}, {"id": "p2", "text": LAMPS, "labels": ""}]
    questions = [
        {"question": "Where was it made?", "answer": "Lund", "passage": "p1", "labels": "hr"},
        {"question": "它保修多久？", "answer": "大概三十六个月", "passage": "p2", "labels": ""},
        {"question": "Who painted it?", "answer": "", "passage": "", "labels": ""},
    ]
    for name, rows in {"passages": passages, "questions": questions}.items():
        lines = [json.dumps(row) for row in rows]
        if kind == "csv":
            lines = [",".join(rows[0]), *(",".join(f'"{value}"' for value in row.values()) for row in rows)]
        (tmp_path / f"{name}.{kind}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows, _ = read(tmp_path)
    assert {row["document"]: row["labels"] for row in rows if row["text"]} == {"p1": "hr", "p2": ""}
    assert wanted(rows) == sorted([
        ("Where was it made?", "The Vela heater was made in Lund.", "p1"),
        ("它保修多久？", "阿洛灯在青石镇生产。", "p2"),
        ("Who painted it?", "", ""),
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        ('{"data": [{"paragraphs": [{"context": "A.", "qas": [', "no JSON"),
        ('{"data": {"context": 1, "qas": []}}', "no list of articles"),
        ('[{"paragraphs": [{"context": 3, "qas": []}]}]', "article 0, paragraph 0 has no context"),
        ('[{"context": "A.", "qas": [{"id": 1}]}]', "qas without a question"),
    ],
)
def test_a_file_that_only_looks_like_a_set_is_refused_with_its_place(tmp_path: Path, said: str, detail: str) -> None:
    (tmp_path / "a.json").write_text(said)
    with pytest.raises(PlatformError, match=r"no question set: a\.json") as refused:
        read(tmp_path / "a.json")
    assert detail in refused.value.detail


@pytest.mark.parametrize(
    ("passages", "questions", "said"),
    [
        ("id,body\n1,A.\n", "question,answer\n", "no column 'text'"),
        ("id,text\n1,A.\n1,B.\n", "question,answer\n", "row 2 has an id of a row before"),
        ("id,text\n1,\n", "question,answer\n", "row 1 has no id or no text"),
        ("id,text\n1,A.\n", "question,answer,passage\nWhat?,A,7\n", "row 1 names a passage that is not there: 7"),
    ],
)
def test_what_is_wrong_in_passages_is_named(tmp_path: Path, passages: str, questions: str, said: str) -> None:
    (tmp_path / "passages.csv").write_text(passages)
    (tmp_path / "questions.csv").write_text(questions)
    with pytest.raises(PlatformError) as refused:
        read(tmp_path)
    assert said in f"{refused.value.headline} {refused.value.detail}"
