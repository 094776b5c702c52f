"""What decides what a step makes decides its key, and nothing else; an entry is there whole or not at all."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import storage
from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from pipelines.groups import Group
from pipelines.io.step_cache import FOLDER, KEPT_DAYS, OUT, Entry, StepCache, fetch, step_key
from pipelines.resources import STEPS
from pipelines.steps.calls import CALLS, ORDER

CACHED = [step for step in ORDER["full"] if STEPS[step].cached]
# What changes -> the steps that make something else then.
DECIDES = {
    "task": CACHED,
    "code_version": CACHED,
    "nonce": CACHED,
    "dataset": CACHED,
    "data_config": CACHED,
    "data_version": ["materialise", "build_dataset", "train", "evaluate"],
    "store": ["materialise", "build_dataset", "train", "evaluate"],
    "forgotten": ["materialise", "build_dataset", "train", "evaluate"],
    "beside": ["materialise", "build_dataset", "train", "evaluate"],
    "train_config": ["train", "evaluate"],
    "config": ["evaluate"],
    "source": ["evaluate"],
    "run": [],
    "promote": [],
    "checkpoints": [],
    "distributed_job": [],
    "hub": ["train", "evaluate"],
    "ledger": ["train", "evaluate"],
}
VALUES = st.fixed_dictionaries({name: st.text(max_size=8) for name in DECIDES})


def keys(values: dict[str, Any], where: Endpoints | None = None) -> dict[str, str]:
    """The keys of a run's steps, each of which leaves its artifact below its key."""
    ends = (where or Endpoints(home="/here")).resolved().model_dump()
    run = Group({**values, "endpoints": ends, "steps": "/store"}, {}, Path(), calls=CALLS)
    made = {}
    for step in CACHED:
        made[step] = run.key(step)
        run.artifacts[CALLS[step].artifact[1]] = f"/store/{step}/{made[step]}/attempt"
    return made


@given(values=VALUES, name=st.sampled_from(sorted(DECIDES)), other=st.text(max_size=8))
def test_a_change_reaches_exactly_the_steps_behind_it(values: dict[str, Any], name: str, other: str) -> None:
    before = keys(values)
    assert keys(dict(values)) == before
    if other != values[name]:
        after = keys({**values, name: other})
        assert [step for step in CACHED if after[step] != before[step]] == DECIDES[name]


def test_every_argument_of_a_cached_step_is_in_its_key_or_said_to_decide_nothing() -> None:
    known = {*DECIDES, "endpoints", *(call.artifact[1] for call in CALLS.values())}
    assert {value for step in CACHED for value in CALLS[step].inputs(bool).values()} <= known


@pytest.mark.parametrize(("place", "changes"), [("features", True), ("online", True), ("data", False)])
def test_features_are_made_again_for_another_store_of_theirs(place: str, changes: bool, tmp_path: Path) -> None:
    values = dict.fromkeys(DECIDES, "x")
    other = Endpoints(home="/here", **{place: str(tmp_path)})
    assert (keys(values, other)["materialise"] != keys(values)["materialise"]) == changes


@given(parts=st.lists(st.text(max_size=4), min_size=2, max_size=2))
def test_values_cannot_be_moved_from_one_argument_to_another(parts: list[str]) -> None:
    one, two = parts
    if one != two:
        assert step_key("train", {"a": one, "b": two}) != step_key("train", {"a": two, "b": one})
    assert step_key("train", {"a": one + two, "b": ""}) != step_key("train", {"a": one, "b": two}) or not two


@pytest.fixture
def cache(tmp_path: Path) -> StepCache:
    return StepCache(str(tmp_path / "store"))


def made(tmp_path: Path, text: str = "rows") -> Path:
    """What a step leaves, a folder of two files."""
    folder = tmp_path / f"made-{text}"
    (folder / OUT / "inner").mkdir(parents=True)
    (folder / OUT / "a.txt").write_text(text)
    (folder / OUT / "inner" / "b.txt").write_text("more")
    return folder


def test_an_entry_is_found_by_its_key_only(cache: StepCache, tmp_path: Path) -> None:
    assert cache.find("train", "k1") is None
    kept = cache.keep(cache.address("train", "k1"), made(tmp_path), {"rows": 3, "loss": float("nan")})
    assert cache.find("train", "k1") == kept == Entry(kept.address, {"rows": 3, "loss": None})
    assert cache.find("train", "k2") is None
    assert cache.find("evaluate", "k1") is None
    here = fetch(kept.address, tmp_path / "here")
    assert {p.relative_to(here).as_posix() for p in here.rglob("*") if p.is_file()} == {"a.txt", "inner/b.txt"}


def test_what_is_made_on_this_disk_is_moved(cache: StepCache) -> None:
    with cache.scratch() as scratch:
        folder = made(scratch)
        place = Path(cache.keep(cache.address("train", "k1"), folder, {}).address)
        assert not folder.exists()
    assert (place / OUT / "a.txt").read_text() == "rows"
    assert [path.name for path in Path(cache.root).iterdir() if path.is_dir()] == ["train"]


def test_what_a_killed_run_was_making_goes_and_what_another_makes_stays(cache: StepCache) -> None:
    with cache.scratch() as busy:
        left = busy.parent / ".making-killed"
        left.mkdir()
        (left / "half").write_text("of a model")
        with cache.scratch() as scratch:
            assert not left.exists()
            assert busy.exists()
            assert scratch != busy


def test_what_a_failed_step_says_of_its_input_stays_and_is_no_entry(cache: StepCache) -> None:
    address = cache.address("validate", "k1")
    with cache.scratch() as scratch:
        folder = made(scratch)
        for name in ("quarantine.csv", "report.json", "part-00000.parquet"):
            (folder / OUT / name).write_text("1")
        cache.leave(address, folder)
    assert {path.name for path in (Path(address) / OUT).iterdir()} == {"quarantine.csv", "report.json"}
    assert cache.find("validate", "k1") is None


@pytest.mark.parametrize("survives", ["", "files.json"])
def test_an_upload_that_was_broken_off_is_not_seen(cache: StepCache, tmp_path: Path, survives: str) -> None:
    kept = cache.keep(cache.address("train", "k1"), made(tmp_path), {})
    (Path(cache.root) / "train" / "k1" / "result.json").unlink()
    if not survives:
        (Path(kept.address) / "files.json").unlink()
    assert cache.find("train", "k1") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"result": {}}', "7"])
def test_a_result_that_is_none_is_not_seen(cache: StepCache, tmp_path: Path, text: str) -> None:
    cache.keep(cache.address("train", "k1"), made(tmp_path), {})
    (Path(cache.root) / "train" / "k1" / "result.json").write_text(text)
    assert cache.find("train", "k1") is None


@pytest.mark.parametrize("damage", ["gone", "cut", "all gone"])
def test_an_entry_that_lost_files_is_named_and_never_used(cache: StepCache, tmp_path: Path, damage: str) -> None:
    kept = cache.keep(cache.address("train", "k1"), made(tmp_path), {})
    file = Path(kept.address) / OUT / "inner" / "b.txt"
    file.write_text("m") if damage == "cut" else file.unlink()
    if damage == "all gone":
        (Path(kept.address) / "files.json").unlink()
    with pytest.raises(PlatformError, match="missing or damaged") as caught:
        fetch(kept.address, tmp_path / "here")
    assert caught.value.code == "missing_artifact"
    assert "--no-cache" in caught.value.fix
    assert (cache.find("train", "k1") is None) is (damage != "cut")  # the next run makes it again


def test_two_runs_that_make_the_same_at_once_do_not_mix(cache: StepCache, tmp_path: Path) -> None:
    one = cache.keep(cache.address("train", "k1"), made(tmp_path, "one"), {"made": 1})
    two = cache.keep(cache.address("train", "k1"), made(tmp_path, "two"), {"made": 2})
    assert (fetch(one.address, tmp_path) / "a.txt").read_text() == "one"  # who had begun to read it goes on
    found = cache.find("train", "k1")
    assert found == two
    assert (fetch(two.address, tmp_path) / "a.txt").read_text() == "two"


def test_a_step_that_makes_a_file_is_kept_too(cache: StepCache, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / OUT).write_text(json.dumps({}))
    kept = cache.keep(cache.address("materialise", "k"), folder, {})
    assert storage.read_bytes(storage.join(kept.address, OUT)) == b"{}"
    assert fetch(kept.address, tmp_path / "here").read_text() == "{}"


def test_what_no_run_has_used_for_long_goes_when_the_next_begins(tmp_path: Path) -> None:
    cache = StepCache(str(tmp_path / FOLDER))

    def keep(key: str) -> None:
        with cache.scratch() as folder:
            (folder / "made").mkdir()
            (folder / "made" / OUT).write_text(key)
            cache.keep(cache.address("train", key), folder / "made", {})

    for key in ("used", "unused", "new"):
        keep(key)
    long_ago = time.time() - (KEPT_DAYS + 1) * 86_400
    for key in ("used", "unused"):
        for path in (tmp_path / FOLDER / "train" / key / "result.json", tmp_path / FOLDER / "train" / key):
            os.utime(path, (long_ago, long_ago))
    assert cache.find("train", "used")
    with cache.scratch():
        assert {path.name for path in (tmp_path / FOLDER / "train").iterdir()} == {"used", "new"}
    assert [cache.find("train", key) is not None for key in ("used", "unused", "new")] == [True, False, True]
