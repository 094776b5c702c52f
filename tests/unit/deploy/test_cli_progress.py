"""Progress: bars in a terminal, one line per finished step elsewhere."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from deploy.cli.runs.progress import RunProgress
from pipelines.data.left_out import document

EVENTS: list[dict[str, Any]] = [
    {"event": "run_started", "run_id": "r", "steps": ["ingest", "train"]},
    {"event": "step_started", "step": "ingest"},
    {"event": "progress", "step": "ingest", "done": 300_000, "total": 1_200_000, "rows": 12},
    {"event": "note", "step": "ingest", "message": "articles: 12 documents, 2 columns: _id string, text.title string"},
    {"event": "step_finished", "step": "ingest", "seconds": 3.21},
    {"event": "step_cached", "step": "validate", "seconds": 0.0},
    {"event": "log", "step": "train", "message": "a library says something"},
    {"event": "step_started", "step": "train"},
    {"event": "progress", "step": "train", "done": 10, "total": None, "valid_average_precision": 0.34567, "x" * 30: 1},
    {"event": "step_failed", "step": "train", "seconds": 65.0, "error": {}},
]


def shown(*, terminal: bool) -> str:
    out = Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None, legacy_windows=False)
    with RunProgress(out) as progress:
        for event in EVENTS:
            progress.show(event)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_without_a_terminal_each_finished_step_is_one_line() -> None:
    assert shown(terminal=False).splitlines() == [
        "         articles: 12 documents, 2 columns: _id string, text.title string",
        "ok ingest                3.2 s",
        " = validate              0.0 s  unchanged, from the cache",
        " x train            1 min 05 s  failed",
    ]


def test_rows_that_a_step_left_out_are_on_its_line_whole_and_no_other_steps() -> None:
    group = {"step": "validate", "reason": "content: byte 0xe9 is not UTF-8", "rows": 4, "where": "/runs/" + "q" * 90}
    result = {"left_out": document(200, [group], [])}
    written = io.StringIO()
    out = Console(file=written, width=60)
    with RunProgress(out) as progress:
        for step in ("validate", "build_dataset"):
            progress.show({"event": "step_finished", "step": step, "seconds": 4.2, "result": result})
    said = f"4 of 200 rows left out: content: byte 0xe9 is not UTF-8 (4); see {group['where']}"
    assert written.getvalue().splitlines() == [
        f"ok validate              4.2 s  {said}",
        "ok build_dataset         4.2 s",
    ]


def test_a_terminal_ends_with_the_same_steps_as_bars_that_fit() -> None:
    last = shown(terminal=True).rstrip("\x1b[?25h").splitlines()[-3:]
    for line, (mark, step, time) in zip(
        last, [("ok", "ingest", "3.2 s"), ("=", "validate", "0.0 s"), ("x", "train", "1 min 05 s")], strict=True
    ):
        assert mark in line
        assert step in line
        assert time in line


@pytest.mark.parametrize(
    ("event", "note"),
    [
        ({"done": 300_000, "total": 1_200_000, "rows": 12}, "300k/1.2M  rows 12"),
        ({"done": 3, "total": 4, "doing": "join"}, "3/4  doing join"),
        ({"done": 1, "total": None, "loss": 0.34567, "a_metric_with_a_very_long_name_of_its_own": 0.1}, "loss 0.346"),
    ],
)
def test_a_note_has_what_fits(event, note) -> None:
    from deploy.cli.runs.progress import _note

    assert _note({"event": "progress", "step": "x", **event}) == note
