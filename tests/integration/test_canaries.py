"""Canaries in a source: after a run no byte of its home has one, whatever became of the row that had it; and after
somebody is forgotten, none names them."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.pii.redaction import KEY
from pipelines.task import dump_config
from tests.leftovers import left
from tests.toy.toy_task import TASK, toy_frame

pytestmark = pytest.mark.integration
TOY, ROOT = Path(__file__).parents[1] / "toy", Path(__file__).parents[2]
SECRET = "c0ffee" * 11
FORGOTTEN, NEIGHBOUR = "PARCEL-OF-NOBODY-7", "ANOTHER-PARCEL-8"
CANARIES = [
    "13812349876",
    "canary@leak.example.org",
    "11010519491231002X",
    "Zhāng Canary",
    "canary-in-a-bad-row",
    "6222021234567890128",
]


def source(folder: Path, frame: Any) -> Path:
    """The toy's rows with a canary in each place that a value can come to rest in."""
    rows = frame.assign(
        sent=frame["sent"].dt.strftime("%Y-%m-%dT%H:%M:%S"), sender="Zhāng Canary", card="6222021234567890128"
    )
    rows["note"] = [CANARIES[at % 3] if at % 5 == 0 else note for at, note in enumerate(rows["note"])]
    rows.loc[[7, 8], "parcel"] = [FORGOTTEN, NEIGHBOUR]
    rows["distance"] = rows["distance"].astype(str)
    rows.loc[3, ["distance", "note"]] = ["far", f"call {CANARIES[0]}"]  # to the quarantine
    text = io.StringIO()
    rows.to_csv(text, index=False, quoting=csv.QUOTE_MINIMAL)
    broken = f"P9,too,few,{CANARIES[4]},{CANARIES[1]}\n".encode()
    undecodable = f"PX,2026-01-01T00:00:00,1,1,box,{CANARIES[0]} ".encode() + b"\xff,no,Canary,1\n"
    file = folder / "sources" / "canaries.csv"
    file.parent.mkdir()
    file.write_bytes(text.getvalue().encode() + broken + undecodable)
    return file


def run(home: Path, run_id: str, file: Path, pii: dict[str, str]) -> tuple[int, str]:
    """A run as the command line starts it; its exit code and all that it printed."""
    asked: dict[str, Any] = {"run_id": run_id, "endpoints": {"home": str(home)}, "task": "toy", "source": str(file)}
    config = json.loads(dump_config(TASK.recipes["tree"]))
    config["data"]["pii"] = pii
    asked |= {"config": config}
    return called(["pipelines", "run", json.dumps(asked)])


def called(arguments: list[str], **environment: str) -> tuple[int, str]:
    """A module as a process; its exit code and all that it printed."""
    path = os.pathsep.join([str(TOY), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        env=os.environ | {"PYTHONPATH": path, KEY: SECRET} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def test_nothing_redacted_is_left_anywhere(tmp_path: Path, with_tables: Callable[[Path], Path]) -> None:
    home = with_tables(tmp_path / "home")
    file = source(tmp_path, toy_frame(300))
    code, said = run(home, "toy-canaries", file, {"note": "hash", "sender": "encrypt:whole", "card": "surrogate"})
    document = json.loads((home / "runs" / "toy-canaries" / "run.json").read_text())
    assert code == 0, document["error"]
    (home / "said.txt").write_text(said)
    assert left(home, [*CANARIES, SECRET]) == {}
    personal = document["steps"]["ingest"]["result"]["personal"]
    assert personal["note"]["operator"] == "hash"
    assert set(personal["note"]["found"]) == {"phone", "email", "cn_id"}
    assert personal["card"]["found"] == {"card": 300}
    (bundle,) = (home / "bundles" / "toy").iterdir()
    page = (bundle / "data.html").read_text()
    assert "surrogate" in page
    assert "encrypt:whole" in page
    assert set(left(file.parent, CANARIES)) == set(CANARIES)  # the search finds what is there
    assert document["steps"]["validate"]["result"]["bad"] == 3  # far, too few values, not UTF-8
    assert len(left(home, [FORGOTTEN])[FORGOTTEN]) >= 3  # parts and cached steps
    told = forget(home)
    assert left(home, [FORGOTTEN]) == {}
    assert left(home, [NEIGHBOUR])
    (task,) = told["tasks"]
    assert task["versions"][0]["rows"] == 1
    assert [one["ref"] for one in task["models"]] == ["toy:1"]
    assert told["left"] == []


def forget(home: Path) -> Any:
    code, said = called(
        ["deploy.cli", "forget", "--entity", f"parcel={FORGOTTEN}", "--task", "toy", "--json"], FAIRLEAD_HOME=str(home)
    )
    assert code == 0, said
    return json.loads(said)
