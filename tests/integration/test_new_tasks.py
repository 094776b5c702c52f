"""Tasks that others add, by a template or in a package of their own, from raw data to answers, by the command line."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.metric_names import PREDICTIONS
from contracts.ports import free_port
from contracts.problems.image import pixels_of
from deploy.cli.project.scaffold import combinations
from tests.image_bundle import bar, disc, encoded
from tests.packages import install_counts
from tests.shell import ROOT, Shell, documents
from tests.tiny_llama import write_tiny_llama

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory, with_tables: Callable[[Path], Path]) -> Shell:
    """A copy of the project to write new tasks into."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("contracts", "pipelines", "services", "feature_repo", "deploy", "fairlead"):
        # With what is compiled, but for what is being written.
        shutil.copytree(ROOT / name, folder / "project" / name, ignore=shutil.ignore_patterns("*.pyc.*"))
    shutil.copy(ROOT / "pyproject.toml", folder / "project")
    return Shell(with_tables(folder / "home"), folder / "project")


ROWS: dict[tuple[str, str], dict[str, Any]] = {
    ("classification", "tabular"): {"customer_id": "C00001", "plan": "plus", "monthly_charge": 50, "support_calls": 6},
    ("multilabel", "tabular"): {
        "kind": "lathe", "temperature": 84.0, "vibration": 5.2, "oil_pressure": 2.4, "hours": 4000.0},
    ("regression", "tabular"): {"place": "lake", "area": 120.0, "rooms": 4, "built": 2015},
    ("classification", "text"): {"message": "The courier left my box outside and it rained on it."},
    ("multilabel", "text"): {"message": "The parcel came a week late. The box was torn open."},
    ("regression", "text"): {"description": "For sale: electric bike, hardly used, 2 years old. With the receipt"},
    ("embedding", "text"): {"question": "How do I change my address?"},
    ("classification", "image"): {"image": encoded(bar())},
    ("detection", "image"): {"image": encoded(disc())},
    ("image", "drawing"): {"prompt": "a disc, please", "seed": 1},
    ("tagging", "text"): {"message": "My Tisk 3 does not start. The shop in Lyon was closed."},
    ("generation", "chat"): {"prompt": "The letters after v are w"},
    ("generation", "text"): {"report": "The pump in hall C leaks oil. Nobody was hurt. A spare part is in stock."},
}  # fmt: skip


# Through `fairlead run`, the one whose weights come from outside among them; the others by the same steps.
BY_COMMAND = (("classification", "tabular"), ("generation", "chat"))
STEPS = """
import json, sys
from pathlib import Path
from tests.chain import Chain

for name, home in json.loads(sys.argv[1]):
    made = Chain(task=name, home=Path(home))
    made.dataset()
    made.candidate()
    print(json.dumps([name, made.published()]), flush=True)
"""


def new_task(copy: Shell, problem: str, modality: str) -> str:
    name = f"{modality}_{problem}"
    copy("new-task", name, "--problem", problem, "--modality", modality, "--root", str(copy.project))
    return name


@pytest.fixture(scope="module")
def trained(copy: Shell, with_tables: Callable[[Path], Path]) -> tuple[dict[str, Shell], dict[str, Any]]:
    """Homes of all but `BY_COMMAND`, and what their gates say: one process, whose libraries load once."""
    names = [new_task(copy, *row) for row in ROWS if row not in BY_COMMAND]
    shells = {name: Shell(with_tables(copy.home.parent / name / "home"), copy.project) for name in names}
    asked = json.dumps([(name, str(shell.home)) for name, shell in shells.items()])
    environment = copy.environment | {"PYTHONPATH": f"{copy.project}{os.pathsep}{ROOT}"}
    command, folder = [sys.executable, "-c", STEPS, asked], copy.home.parent
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    gates = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    assert done.returncode == 0, f"{names[len(gates)]}:\n{done.stderr}"
    return shells, gates


def is_right(problem: str, answer: dict[str, Any]) -> bool:
    """Whether the answer to a row of `ROWS` is what anyone would say."""
    if problem == "classification":
        return answer["label"] in ("yes", "delivery", "bar")
    if problem == "multilabel":
        return set(answer["labels"]) in ({"bearing", "leak", "overheating"}, {"late", "damaged"})
    if problem == "regression":
        low, high = answer["interval"]
        return low <= answer["value"] <= high and 700 < answer["value"] < 1500
    if problem == "detection":
        [one] = answer["objects"]
        return one["label"] == "disc" and one["box"] == pytest.approx([20, 24, 41, 45], abs=4)
    if problem == "image":
        pixels = pixels_of(base64.b64decode(answer["image"]))
        return answer["label"] == "disc" and pixels.shape == (16, 16, 1) and pixels.std() > 20
    if problem == "tagging":
        said = ROWS["tagging", "text"]["message"]
        found = {(said[span["start"] : span["end"]], span["type"]) for span in answer["spans"]}
        return found == {("Tisk 3", "PRODUCT"), ("Lyon", "PLACE")}
    if problem == "generation":
        return answer["text"] == "xyz" or answer["text"].startswith("The pump in hall C leaks oil.")
    return sum(value * value for value in answer["embedding"]) == pytest.approx(1, abs=1e-3)


def test_every_combination_of_a_new_task_has_a_row_here() -> None:
    assert sorted(ROWS) == combinations()


@pytest.mark.parametrize(("problem", "modality"), ROWS)
def test_a_new_task_runs_from_raw_data_to_a_prediction(copy, trained, problem, modality) -> None:
    row = ROWS[problem, modality]
    if (problem, modality) in BY_COMMAND:
        shell, name = copy, new_task(copy, problem, modality)
        weights = write_tiny_llama(copy.project / "tiny.gguf") if modality == "chat" else None
        more = ["--set", f"model.weights={weights}"] if weights else []
        gate = copy.json("run", name, *more)["gate"]
    else:
        name = f"{modality}_{problem}"
        shell, gate = trained[0][name], trained[1][name]
    assert gate["passed"] is True, gate
    explain = ["--explain"] if problem not in ("embedding", "generation", "detection", "tagging", "image") else []
    prediction = shell.json("predict", name, "--input", json.dumps(row), *explain)["predictions"][0]
    assert is_right(problem, prediction), prediction
    assert (prediction["flags"], bool(prediction.get("reasons"))) == ([], bool(explain))


def test_a_package_without_an_edit_here_takes_a_file_to_a_service(
    tmp_path: Path, with_tables: Callable[[Path], Path]
) -> None:
    install_counts(tmp_path / "site")
    shell = Shell(with_tables(tmp_path / "home"))
    shell.environment["PYTHONPATH"] = f"{tmp_path / 'site'}{os.pathsep}{ROOT}"
    rows = []
    for at in range(400):
        size, place = at % 97 + 20.5, ("city", "lake")[at % 2]
        rows.append(f"H{at},{size},{place},{int(size // 25) if at % 8 else at % 5}")  # one in eight follows no rule
    (tmp_path / "houses.csv").write_text("\n".join(["house,size,place,beds", *rows]))
    asked = ["run", "beds", "--source", "houses.csv", "--recipe"]
    assert "exact" in str(shell.json(*asked, "coarse", code=3)["gate"]["reasons"])
    report = shell.json(*asked, "fine")
    assert report["result"]["champion"] is True
    card = max(shell.home.rglob("card.html"), key=lambda file: file.stat().st_mtime_ns).read_text()
    assert "Answers a count up to 4." in card
    assert "Counts that are exactly right" in card
    process = shell.start("serve", "beds", "--port", str(free_port()), "--json")
    try:
        served = documents(process)
        request = urllib.request.Request(
            f"{served['url']}/predict",
            json.dumps({"instances": [{"size": 80.0, "place": "lake"}, {"size": 24.0, "place": "city"}]}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as response:
            assert [one["count"] for one in json.load(response)["predictions"]] == [3, 0]
        with urllib.request.urlopen(served["metrics_url"]) as response:
            lines = [line for line in response.read().decode().splitlines() if line.startswith(PREDICTIONS)]
        counted = {label: float(line.split()[-1]) for label in ("none", "some") for line in lines if label in line}
        assert min(counted["none"], counted["some"]) >= 1
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
