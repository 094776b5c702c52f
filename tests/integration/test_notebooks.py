"""The notebooks, and the examples of docs/workbench.md, from top to bottom in one home."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.notebooks import NOTEBOOKS, ROOT, run_notebook

pytestmark = pytest.mark.integration

EXAMPLES = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, with_tables: Callable[[Path], Path]) -> Iterator[Path]:
    """A folder below one that has a home."""
    folder = tmp_path_factory.mktemp("project")
    with_tables(folder / ".fairlead")
    below = folder / "notebooks"
    below.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FAIRLEAD_HOME", raising=False)
        yield below


def shown(notebook: Any, form: str) -> str:
    """What all cells show in one form: text/html, text/plain, or stdout."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(
        str(output.get("text", "") if form == output.get("name") else output.get("data", {}).get(form, ""))
        for output in outputs
    )


def test_models_are_trained_compared_and_read(project: Path) -> None:
    notebook = run_notebook(NOTEBOOKS[0], project)
    text, html = shown(notebook, "text/plain"), shown(notebook, "text/html")
    assert str(project.parent / ".fairlead") in text
    assert re.search(r"credit-\S+ +succeeded +scorecard", text)
    assert re.search(r"roc_auc +0\.\d+ +0\.\d+ +-?0\.\d+", text)
    assert "ok register" in text  # the progress of a run, when it had ended
    assert "<iframe sandbox" in html
    assert html.count("data:image/png;base64,") >= 3
    assert "<script" not in html


def test_an_endpoint_answers_with_its_reasons(project: Path) -> None:
    notebook = run_notebook(NOTEBOOKS[1], project)
    text = shown(notebook, "text/plain")
    assert re.search(r"late_payments=1\.00 +0\.\d+", text)
    table = re.findall(r"^(\d+) +(?:repaid|default) +(0\.\d+)$", text, re.MULTILINE)
    assert [debt for debt, _ in table] == ["0", "1000", "2500", "5000", "10000", "20000"]
    assert float(table[-1][1]) > float(table[0][1])
    assert "income: expected a number" in shown(notebook, "stdout")


def test_an_endpoint_that_is_down_ends_the_notebook_with_what_to_do(project: Path) -> None:
    from nbclient.exceptions import CellExecutionError

    with pytest.raises(CellExecutionError) as caught:
        run_notebook(NOTEBOOKS[1], project, {"FAIRLEAD_ENDPOINT": "http://127.0.0.1:9"})
    said = re.sub(r"\x1b\[[\d;]*m", "", str(caught.value)).partition("PlatformError: ")[2].strip().splitlines()
    assert said == [
        "no answer from http://127.0.0.1:9/predict",
        "  [Errno 111] Connection refused",
        "  Fix: start it: fairlead serve MODEL, or correct url=",
    ]


def test_drift_is_seen_a_run_started_and_its_rollout_followed(project: Path) -> None:
    notebook = run_notebook(NOTEBOOKS[2], project)
    text = shown(notebook, "text/plain")
    assert re.search(r"^amount .* changed$", text, re.MULTILINE)
    assert re.search(r"^income .* -$", text, re.MULTILINE)
    assert "'amount'" in text
    assert re.search(r"start canary +0 % +drift of .*amount", text)
    assert re.search(r"all traffic +100 %", text)
    assert re.search(r"user:\S+ +rollout start canary +credit:3 +drift of", text)
    assert re.search(r"^credit:3 +challenger, champion +passed", text, re.MULTILINE)


def test_the_examples_of_the_page_work(project: Path, tmp_path: Path) -> None:
    examples = EXAMPLES.findall((ROOT / "docs" / "workbench.md").read_text(encoding="utf-8"))
    assert len(examples) >= 3
    page = tmp_path / "examples.py"
    header = (ROOT / "notebooks" / NOTEBOOKS[0].name).read_text(encoding="utf-8").partition("# %%")[0]
    page.write_text(header + "".join(f"# %%\n{example}\n" for example in examples))
    assert "credit:" in shown(run_notebook(page, project), "text/plain")
