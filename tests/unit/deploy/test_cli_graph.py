"""The graph of a run is shown before it starts, and without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from contracts.endpoints import Endpoints
from deploy.cli.runs.progress import show_steps
from pipelines.run import Run

NEWS = "ingest > validate > build_dataset > train > evaluate > gate > register\n"


def test_a_task_shows_the_steps_that_it_needs(fairlead: Callable[..., Any]) -> None:
    assert fairlead("run", "news", "--graph", "text").out == NEWS
    assert "validate > materialise > build_dataset" in fairlead("run", "fraud", "--graph", "text").out


def test_the_graph_says_whose_output_each_step_takes(fairlead: Callable[..., Any]) -> None:
    found = fairlead("run", "fraud", "--graph", "mermaid", "--json").json
    assert found["steps"]["build_dataset"] == ["validate", "materialise"]
    assert found["steps"]["evaluate"] == ["ingest", "build_dataset", "train"]
    drawn = found["mermaid"].splitlines()
    assert drawn[0] == "flowchart LR"
    assert [line.strip() for line in drawn[1:]] == [
        *found["steps"],
        *(f"{before} --> {step}" for step, needs in found["steps"].items() for before in needs),
    ]
    assert "materialise" not in fairlead("run", "news", "--graph", "mermaid").out


@pytest.mark.parametrize(
    ("words", "code"), [(("news", "--graph", "dot"), "bad_option"), (("nothing", "--graph", "text"), "unknown_task")]
)
def test_a_graph_that_cannot_be_shown_says_why(words: tuple[str, ...], code: str, fairlead: Callable[..., Any]) -> None:
    assert fairlead("run", *words, "--json").json["error"]["code"] == code


def test_a_run_shows_its_graph_when_it_starts(capsys: pytest.CaptureFixture[str]) -> None:
    request = Run(run_id="n", task="news", endpoints=Endpoints())
    show_steps(Console(width=20), request)
    assert capsys.readouterr().out == NEWS
