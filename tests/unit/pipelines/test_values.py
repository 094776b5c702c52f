"""What a run is when little is asked: the task's and the platform's defaults, and settings written as one text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from pipelines.io.record import PLACE, RUN, open_record
from pipelines.parameters import parameters_of, run_of, said_by
from pipelines.run import Run
from pipelines.settings import parse_setting, split_settings
from pipelines.tasks import get_task, recipe_config
from pipelines.values import ENDPOINTS, as_document, chosen_config, run_id, values_of


def test_the_task_alone_is_enough(endpoints: str) -> None:
    run = run_of({"task": "news"}, {ENDPOINTS: endpoints, RUN: "0f3c-77"}, "full")
    found = values_of(run)
    assert found["config"] == run.config == as_document(recipe_config(get_task("news")))
    assert (found["endpoints"], found["source"], found["promote"], found["nonce"]) == (
        json.loads(endpoints),
        "",
        True,
        "",
    )
    assert re.fullmatch(r"news-\d{8}-\d{6}-0f3c", found["run"])


@pytest.mark.parametrize("each", [False, True])
def test_parameters_say_what_the_run_is_asked(each: bool, endpoints: str) -> None:
    asked = {"config": as_document(recipe_config(get_task("news"), "encoder")), "source": "s3://b/x.csv", "nonce": "n"}
    where = Endpoints.model_validate_json(endpoints)
    run = Run(run_id="news-1", task="news", promote=False, endpoints=where, distributed_job={"nodes": 2}, **asked)
    given = parameters_of(run, each=each)
    assert (given["task"], given["run"]) == ("news", "news-1")
    said = said_by(given)
    for name in ("run_id", "task", "recipe", "config", "source", "nonce", "promote"):
        assert getattr(said, name) == getattr(run, name)
    if not each:
        pod = run_of(given, {}, "full")
        assert pod.having(code_version="") == run
    else:
        assert json.loads(given["train_context"])["distributed_job"] == {"nodes": 2}


def test_every_pod_of_a_run_that_nobody_named_calls_it_as_its_first_step_did(tmp_path: Path) -> None:
    pod = {PLACE: str(tmp_path), RUN: "0f3c-77"}
    first = run_id("news", "", pod)
    record = open_record(pod)
    assert record is not None
    record.write_run(Run(run_id=first), {})
    record.close()
    assert run_id("news", "", pod) == first
    assert re.fullmatch(r"news-\d{8}-\d{6}-9a01", run_id("news", "", {**pod, RUN: "9a01-5"}))
    assert run_id("news", "mine", pod) == "mine"


def test_without_addresses_the_cure_is_named() -> None:
    with pytest.raises(PlatformError, match="nothing says where") as caught:
        run_of({"task": "news"}, {}, "full")
    assert "publish" in caught.value.fix


def test_settings_win_over_a_configuration_and_that_over_the_recipe() -> None:
    task = get_task("news")
    found: Any = chosen_config(task, "", {"seed": 4}, {"text.max_tokens": 9, "labels": {"a": "b"}})
    assert (found.seed, found.text.max_tokens, found.labels) == (4, 9, {"a": "b"})
    changed: Any = chosen_config(task, "", {"seed": 4}, {"seed": 5})
    assert changed.seed == 5


def test_what_pods_need_is_not_for_a_pod_to_say(endpoints: str) -> None:
    asked = {"task": "news", "endpoints": endpoints}
    with pytest.raises(PlatformError, match=r"before a run starts: resources\.train\.memory") as caught:
        run_of({**asked, "settings": "seed=5,resources.train.memory=8Gi"}, {}, "full")
    assert "fairlead run news --set" in caught.value.fix
    assert run_of({**asked, "settings": "seed=5"}, {}, "full").config["seed"] == 5


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("", []),
        ("seed=3", ["seed=3"]),
        ("seed=3, model.rounds=5", ["seed=3", "model.rounds=5"]),
        ("seed=3\n\n model.rounds=5 \n", ["seed=3", "model.rounds=5"]),
        ('gate.thresholds=[{"metric": "accuracy", "minimum": 0.9}],seed=1',
         ['gate.thresholds=[{"metric": "accuracy", "minimum": 0.9}]', "seed=1"]),
        ("data.delimiter=',',seed=1", ["data.delimiter=','", "seed=1"]),
        ("data.columns.title=The title, long", ["data.columns.title=The title, long"]),
        ("data.columns.title=It's,seed=2", ["data.columns.title=It's", "seed=2"]),
    ],
)  # fmt: skip
def test_settings_are_split_where_a_key_follows(text: str, items: list[str]) -> None:
    assert split_settings(text) == items


VALUES = st.recursive(
    st.integers() | st.booleans() | st.text(alphabet="ab,= {}[]", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet="xy", min_size=1), inner, max_size=2),
    max_leaves=4,
)


@given(
    settings=st.dictionaries(st.sampled_from(["seed", "model.rounds", "data.columns.a-b"]), VALUES), comma=st.booleans()
)
def test_values_written_as_json_come_back(settings: dict[str, Any], comma: bool) -> None:
    text = (", " if comma else "\n").join(f"{key}={json.dumps(value)}" for key, value in settings.items())
    assert dict(parse_setting(item) for item in split_settings(text)) == settings


@pytest.mark.parametrize(("name", "key"), [("recommend", "items.source"), ("images", "abstain.other")])
def test_a_file_that_a_step_reads_by_itself_is_known_by_what_is_in_it(tmp_path: Path, name: str, key: str) -> None:
    items, where = tmp_path / "items.csv", Endpoints(home=str(tmp_path / "home"))
    items.write_text("item,genre\na,x\n")
    task = get_task(name)

    def beside(*settings: str) -> str:
        config = as_document(recipe_config(task, None, dict(parse_setting(one) for one in settings)))
        found: str = values_of(Run(run_id="r", task=name, config=config, endpoints=where))["beside"]
        return found

    named = f"{key}={items}"
    assert beside() == beside()
    before = beside(named)
    assert beside(named) == before != ""
    items.write_text("item,genre\na,y\nb,y\n")
    assert beside(named) not in ("", before)
