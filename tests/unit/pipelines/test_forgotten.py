"""Who is forgotten: no step reads a row of theirs from a table beside the version of the data, wherever it runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from pipelines.data import forgotten
from pipelines.evaluation import redaction
from pipelines.recipes.recommend.impressions import fingerprint, read_impressions
from pipelines.recipes.recommend.users import read_users
from pipelines.recipes.text.split import read_texts
from pipelines.run import Run
from pipelines.steps import calls
from pipelines.steps.ingest import ingest
from pipelines.task import DataConfig, dump_config
from pipelines.tasks import get_task, recipe_config
from pipelines.values import ENDPOINTS, values_of
from tests.s3_folder import FolderClient

PERSON, OTHER = "CANARY-4711", "OTHER-4712"
IMPRESSIONS = "".join(
    f"{name},{who},i{place},{place},{place % 2},{100 + place}\n"
    for name, who in (("a", PERSON), ("b", OTHER))
    for place in (1, 2)
)


@pytest.fixture
def root(tmp_path: Path) -> str:
    """An address of data that knows whom to forget: a user of `recommend`, a row of `news`."""
    data = str(tmp_path / "home" / "data")
    forgotten.remember(data, "recommend", "user", PERSON, [])
    forgotten.remember(data, "news", "id", PERSON, [])
    return data


def impressions(folder: Path) -> pd.DataFrame:
    file = folder / "shown.csv"
    file.write_text(f"list,who,item,place,clicked,time\n{IMPRESSIONS}")
    given = {"impressions.source": str(file), "impressions.data.columns.user": "who"}
    config: Any = recipe_config(get_task("recommend"), None, given)
    return read_impressions(config, lambda: pd.DataFrame())


def built_in(folder: Path) -> pd.DataFrame:
    config: Any = recipe_config(get_task("recommend"), None, {"impressions.source": "built-in"})
    rows = [line.split(",") for line in IMPRESSIONS.splitlines()]
    frame = pd.DataFrame(rows, columns=["list", "user", "item", "place", "clicked", "time"])
    without = fingerprint(config, lambda: frame[frame["user"] == OTHER])
    with forgotten.leaving_out("", "recommend"):
        assert fingerprint(config, lambda: frame) != without
    assert fingerprint(config, lambda: frame) == without  # so windows that were made with them are made again
    return read_impressions(config, lambda: frame)


def people(folder: Path) -> pd.DataFrame:
    file = folder / "people.csv"
    file.write_text(f"who,region\n{PERSON},north\n{OTHER},north\n")
    given = {"users.source": str(file), "users.data.columns.user": "who"}
    config: Any = recipe_config(get_task("recommend"), None, given)
    found = read_users(config.users, pd.DataFrame({"user": []}), lambda: None)
    assert found is not None
    return found


def built_in_people(folder: Path) -> pd.DataFrame:
    config: Any = recipe_config(get_task("recommend"))
    rows = pd.DataFrame({"user": [PERSON, OTHER], "region": "north"})
    found = read_users(config.users, pd.DataFrame({"user": []}), lambda: rows)
    assert found is not None
    return found


def texts_of_a_test(folder: Path) -> pd.DataFrame:
    file = folder / "test.csv"
    file.write_text(
        f"number,title,content,category\n{PERSON},Rain,It rained.,weather\n{OTHER},Snow,It snowed.,weather\n"
    )
    data = DataConfig(columns={"id": "number"})
    return read_texts(get_task("news"), str(file), data)  # type: ignore[arg-type]


def labelled(folder: Path) -> pd.DataFrame:
    file = folder / "labelled.jsonl"
    rows = [{"id": who, "text": f"I am {who}", "spans": [[5, 15, "name"]]} for who in (PERSON, OTHER)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return pd.DataFrame({"text": redaction._read(file)[0]})


@pytest.mark.parametrize(
    ("task", "read"),
    [
        ("recommend", impressions),
        ("recommend", built_in),
        ("recommend", people),
        ("recommend", built_in_people),
        ("news", texts_of_a_test),
        ("news", labelled),
    ],
    ids=["impressions", "built-in impressions", "people", "built-in people", "test source", "labelled texts"],
)
def test_no_reader_of_a_step_sees_them(
    task: str, read: Callable[[Path], pd.DataFrame], root: str, tmp_path: Path
) -> None:
    with forgotten.leaving_out(root, task):
        found = read(tmp_path).to_csv()
    assert PERSON not in found
    assert OTHER in found
    with forgotten.leaving_out(root, "sentiment"):  # lists are of one task
        if read is not built_in:
            assert PERSON in read(tmp_path).to_csv()


@pytest.mark.parametrize("given", ["the run", "the platform"])
@pytest.mark.parametrize("step", ["materialise", "build_dataset", "evaluate"])
def test_a_step_on_a_cluster_finds_the_list(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, given: str
) -> None:
    """By the addresses of its context, or by those of the platform, where a schedule gives none."""
    where = Endpoints(home=str(tmp_path / "home")).resolved()
    monkeypatch.setenv(ENDPOINTS, where.model_dump_json())
    config = json.loads(dump_config(recipe_config(get_task("recommend"), None, {})))
    values = values_of(Run(run_id="r", task="recommend", config=config, endpoints=where))
    call, seen = calls.CALLS[step], list[pd.DataFrame]()
    told = json.loads(call.context(values)) | ({"endpoints": ""} if given == "the platform" else {})
    looks = partial(_look, seen, tmp_path)
    monkeypatch.setitem(calls.CALLS, step, SimpleNamespace(**{**vars(call), "call": looks}))
    files = dict.fromkeys((*call.takes, call.artifact[0]), str(tmp_path / "file"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pipelines.code_version.require", lambda *_: None)
        calls.run_step(step, {"context": json.dumps(told), **files})
    assert [set(frame["user"]) for frame in seen] == [{OTHER}]


@pytest.mark.parametrize("somebody", [False, True])
def test_of_a_collection_nothing_is_kept_as_it_came(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, somebody: bool
) -> None:
    kept = list[str]()

    def reads(source: str, step: str, keep: str, **_: Any) -> Any:
        kept.append(keep)
        raise PlatformError("the server is away", fix="start it", code="away")

    monkeypatch.setattr("pipelines.steps.ingest.source_here", reads)
    task = "recommend" if somebody else "sentiment"
    with pytest.raises(PlatformError):
        ingest(task, dump_config(recipe_config(get_task(task), None, {})), "mongodb://h/d/c?grows=at", root, "")
    assert kept == ["" if somebody else f"{root}/{task}/.collections"]


def _look(seen: list[pd.DataFrame], folder: Path, given: dict[str, Any]) -> None:
    seen.append(impressions(folder))


def test_a_step_is_not_taken_from_the_cache_after_somebody_is_forgotten(root: str, tmp_path: Path) -> None:
    where = Endpoints(home=str(tmp_path / "home")).resolved()
    config = json.loads(dump_config(recipe_config(get_task("recommend"), None, {})))

    def contexts() -> dict[str, str]:
        run = Run(run_id="r", task="recommend", config=config, endpoints=where)
        return calls.contexts(calls.graph("full", get_task("recommend")), values_of(run))

    before = contexts()
    assert contexts() == before
    forgotten.remember(root, "recommend", "user", OTHER, [])
    after = contexts()
    assert {step for step in before if before[step] != after[step]} == {"materialise", "build_dataset", "evaluate"}


def test_who_cannot_see_the_list_asks_for_what_no_cache_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = FolderClient(tmp_path)
    monkeypatch.setattr("contracts.storage._client", lambda: client)
    where = Endpoints(home=str(tmp_path), data="s3://lake/data")
    config = json.loads(dump_config(recipe_config(get_task("fraud"))))
    run = Run(run_id="r", task="fraud", config=config, endpoints=where)
    assert values_of(run)["forgotten"] == ""
    client.fails = True
    assert values_of(run)["forgotten"] != values_of(run)["forgotten"]
