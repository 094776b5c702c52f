"""Canaries in a source: after a run no byte of its home has one, whatever became of the row that had it; and after
somebody is forgotten, none names them."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from contracts.endpoints import Endpoints
from contracts.pii.redaction import KEY
from pipelines.groups import Group
from pipelines.io.step_cache import StepCache
from pipelines.run import Run
from pipelines.task import dump_config
from pipelines.tasks import get_task, recipe_config
from pipelines.values import values_of
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


def test_who_is_forgotten_does_not_come_back(
    tmp_path: Path, with_tables: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The interactions and what was shown, which the task reads by itself, still have them; no later step does."""
    home, (clicks, shown) = with_tables(tmp_path / "home"), lists(tmp_path)
    given = {"impressions.source": shown, "impressions.data.columns.user": "who", "ranker.kind": "lambdarank"}
    settings = {**given, "ranker.windows": True, "ranker.rounds": 5, "model.factors": 4, "split.by": "time"}
    config = json.loads(dump_config(recipe_config(get_task("recommend"), "als", settings)))
    work(home, clicks, config, _PREPARED)
    before = " ".join(left(home, [FORGOTTEN])[FORGOTTEN])
    assert all(made in before for made in _WITH_PEOPLE)
    forget(home, f"user={FORGOTTEN}", "recommend")
    assert left(home, [FORGOTTEN]) == {}
    work(home, clicks, config, (*_PREPARED, "train"))
    (home / "said.txt").write_text(capsys.readouterr().out.rpartition('"step_started", "step": "ingest"')[2])
    assert left(home, [FORGOTTEN]) == {}
    others = " ".join(left(home, [NEIGHBOUR])[NEIGHBOUR])
    assert all(made in others for made in _WITH_PEOPLE)


_PREPARED = ("ingest", "validate", "materialise", "build_dataset")
_WITH_PEOPLE = ("user_windows.parquet", "impressions.parquet", "online", "train.parquet")


def work(home: Path, source: str, config: Any, steps: Sequence[str]) -> None:
    """Steps of a run of `recommend`, as a pod or a process of a run does them one after the other."""
    where = Endpoints(home=str(home))
    values = values_of(Run(run_id="r", task="recommend", source=source, config=config, endpoints=where))
    with StepCache(values["steps"]).scratch() as folder:
        Group(values, {}, folder).run(steps)


def lists(folder: Path) -> tuple[str, str]:
    """Files of what people took and of what they were shown; two of them are in both."""
    people = [FORGOTTEN, NEIGHBOUR, *(f"person-{at}" for at in range(30))]
    taken, shown = ["id,user,item,time"], ["list,who,item,place,clicked,time"]
    for at, who in enumerate(people):
        for day in range(1, 25):
            item = (at % 3) * 30 + (day * 7 + at) % 30
            moment = f"2026-01-{day:02d}T{at % 24:02d}:00:00"
            taken.append(f"{at}-{day},{who},item-{item},{moment}")
            for place, other in enumerate((item, (item + 31) % 90, (item + 62) % 90), start=1):
                shown.append(f"{at}-{day},{who},item-{other},{place},{int(other == item)},{moment}")
    files = folder / "clicks.csv", folder / "shown.csv"
    for file, rows in zip(files, (taken, shown), strict=True):
        file.write_text("\n".join(rows) + "\n")
    return str(files[0]), str(files[1])


def forget(home: Path, entity: str = f"parcel={FORGOTTEN}", task: str = "toy") -> Any:
    code, said = called(["deploy.cli", "forget", "--entity", entity, "--task", task, "--json"], FAIRLEAD_HOME=str(home))
    assert code == 0, said
    return json.loads(said)
