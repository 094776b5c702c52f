"""Groups of what a deployed model answers: joined from a table of their own, told as rates, and never as people."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import PlatformError
from contracts.fairness import NOT_STATED, Outcome, at_best, measure
from contracts.ports import free_port
from contracts.settings import load
from services.feedback.groups import read_groups
from services.feedback.records import Label
from services.feedback.writing import write_labels
from services.monitor.group_watch import GroupWatch
from services.monitor.model_monitor import ModelMonitor
from services.monitor.rules import Rules
from services.monitor.service import Monitor
from services.monitor.settings import MonitorSettings
from tests.monitor_log import Log

EVALUATION = {"rows": 4_000, "fairness": {"good": "yes", "least": 50}}
GATE = [
    {"metric": "sex:selection_ratio", "rule": "at least", "value": 0.9, "limit": 0.8, "passed": True},
    {"metric": "sex:fpr_gap", "rule": "at most", "value": 0.1, "limit": 0.9, "passed": True},
    {"metric": "roc_auc", "rule": "at least", "value": 0.9, "limit": 0.8, "passed": True},
]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    source = tmp_path / "source"
    source.mkdir()
    (source / "evaluation.json").write_text(json.dumps(EVALUATION))
    made = Log(tmp_path, gate={"passed": True, "checks": GATE})
    made.write(20)
    return made


def records(log: Log) -> list[dict[str, Any]]:
    files = sorted((log.folder / "m").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def people(log: Log, few: int = 3) -> Path:
    """Women are those with a low score, mostly; `few` say another sex, and some are in no table."""
    folder = log.folder.parent / "groups"
    folder.mkdir(exist_ok=True)
    lines = ["id,sex"]
    for at, record in enumerate(records(log)):
        sex = "w" if (record["score"] < 0.3) == (at % 5 > 0) else "m"
        lines += [] if at % 50 == 49 else [f"{record['id']},{'x' if at < few else sex}"]
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    return folder


def watched(log: Log, folder: Path | str, **rules: Any) -> dict[str, Any]:
    made = Rules.model_validate(rules)
    groups = GroupWatch(str(folder), "id", str(log.folder), "m", made)
    monitor = ModelMonitor(str(log.folder), str(log.artifacts), "m", made, groups)
    found = monitor.look(log.at)
    monitor.release()
    return found


def label_all(log: Log) -> None:
    at = log.at
    labels = [Label(id=one["id"], label="yes" if n % 3 else "no", time=at) for n, one in enumerate(records(log))]
    write_labels(str(log.folder), "m", labels)


def test_selection_is_of_all_that_the_table_knows_and_errors_of_those_with_labels(log: Log) -> None:
    folder = people(log)
    before = watched(log, folder)["versions"]["1"]["groups"]
    assert (before["rows"], before["with_group"], before["labelled"]) == (1000, 980, 0)
    assert before["columns"]["sex"]["tpr_gap"] is None
    label_all(log)
    found = watched(log, folder)["versions"]["1"]["groups"]
    sex = found["columns"]["sex"]
    by_name = {one["name"]: one for one in sex["groups"]}
    assert found["labelled"] == 980
    known = {line.split(",")[0]: line.split(",")[1] for line in (folder / "m.csv").read_text().splitlines()[1:]}
    for name, one in by_name.items():
        mine = [record for record in records(log) if known.get(record["id"]) == name]
        assert one["rows"] == one["labelled"] == len(mine)
        assert one["selection"]["value"] == pytest.approx(np.mean([record["label"] == "yes" for record in mine]))
    assert sex["selection_ratio"] == pytest.approx(
        by_name["w"]["selection"]["value"] / by_name["m"]["selection"]["value"]
    )
    assert (by_name["x"]["rows"], by_name["x"]["judged"], by_name["x"]["errors_judged"]) == (3, False, False)
    checks = {check["metric"]: check for check in found["checks"]}
    assert set(checks) == {"sex:selection_ratio", "sex:fpr_gap"}
    assert (checks["sex:selection_ratio"]["passed"], checks["sex:selection_ratio"]["sure"]) == (False, True)
    assert (checks["sex:fpr_gap"]["passed"], checks["sex:fpr_gap"]["sure"]) == (True, False)


def test_nothing_of_the_table_is_kept_but_how_groups_fare(log: Log) -> None:
    watched(log, people(log))
    ids = {record["id"] for record in records(log)}
    for file in (log.folder / "m" / "monitor").rglob("*.json"):
        text = file.read_text()
        assert not any(one in text for one in list(ids)[:200])


def test_a_model_without_a_table_or_without_groups_has_none(log: Log, tmp_path: Path) -> None:
    empty = tmp_path / "nothing"
    empty.mkdir()
    for place in ("", empty):
        report = watched(log, place)
        assert (report["versions"]["1"]["groups"], report["groups_error"]) == ({}, {})
    plain = Log(tmp_path / "plain")
    plain.write(5)
    assert watched(plain, people(plain))["versions"]["1"]["groups"] == {}


def test_a_table_that_cannot_be_used_is_told_and_the_is_watched_all_the_same(log: Log) -> None:
    folder = people(log)
    (folder / "m.csv").write_text("person,sex\n1,w\n")
    report = watched(log, folder)
    assert report["groups_error"]["headline"] == "m.csv has no column id"
    assert report["versions"]["1"]["groups"] == {}
    assert report["versions"]["1"]["inputs"]


def test_groups_are_measured_once_an_hour(log: Log) -> None:
    folder = people(log)
    watch = GroupWatch(str(folder), "id", str(log.folder), "m", Rules())
    monitor = ModelMonitor(str(log.folder), str(log.artifacts), "m", Rules(), watch)
    monitor.look(log.at)
    (folder / "m.csv").unlink()
    assert monitor.look(log.at + timedelta(minutes=59))["versions"]["1"]["groups"]["rows"] == 1000
    assert monitor.look(log.at + timedelta(minutes=61))["versions"]["1"]["groups"] == {}


def test_parquet_and_entities_are_read_too_and_empty_cells_say_nothing(log: Log, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = tmp_path / "m.parquet"
    pq.write_table(pa.table({"customer": [7, 8, 9], "sex": ["w", None, " m "], "age": [1, 2, 3]}), file)
    table = read_groups(str(file), ["sex"], key="customer")
    assert table.of == {"7": ("w",), "8": (NOT_STATED,), "9": ("m",)}
    file.write_bytes(b"no table")
    with pytest.raises(PlatformError, match="cannot be read"):
        read_groups(str(file))


@pytest.fixture
def metrics(log: Log) -> Iterator[Any]:
    """The log as of a minute ago, and a monitor with its own clock."""
    for file in (log.folder / "m").glob("*.jsonl"):
        file.unlink()
    log.now()
    log.write(20)
    (file,) = (log.folder / "m").glob("*.jsonl")
    file.rename(file.with_name(f"{log.at:%Y-%m-%d}.a.jsonl"))
    port = free_port()
    given_to = {"predictions": str(log.folder), "artifacts": str(log.artifacts), "port": port, "host": "127.0.0.1"}
    settings = load(MonitorSettings, environ={}, overrides={**given_to, "groups": str(people(log))})
    monitor = Monitor(settings)
    end = monitor.serve()

    def scrape() -> str:
        monitor.look()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            return str(answer.read().decode())

    yield scrape
    end()


def test_metrics_have_rates_of_groups_that_are_judged_and_only_the_rows_of_the_others(log: Log, metrics: Any) -> None:
    label_all(log)
    text = metrics()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("fairlead_monitor_"))
    assert (
        float(lines['fairlead_monitor_group_rows{column="sex",group="x",model="m",of="predictions",version="1"}']) == 3
    )
    for rate in ("selection", "tpr", "fpr", "calibration"):
        name = 'fairlead_monitor_group_rate{column="sex",group="%s",model="m",rate="%s",version="1"}'
        assert name % ("w", rate) in lines
        assert name % ("x", rate) not in lines
    ends = '{column="sex",measure="selection_ratio",model="m",version="1"}'
    assert float(lines[f"fairlead_monitor_fairness{ends}"]) < 0.8
    assert float(lines[f"fairlead_monitor_fairness_limit{ends}"]) == 0.8
    assert float(lines[f"fairlead_monitor_fairness_broken{ends}"]) == 1


ROWS = st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.booleans()), min_size=4, max_size=120)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_the_fair_end_of_an_interval_is_never_less_fair_than_what_was_measured(rows: list[Any]) -> None:
    outcome = Outcome(
        good="yes",
        selected=np.array([row[1] for row in rows]),
        deserved=np.array([row[2] for row in rows]),
        chance=np.array([0.7 if row[1] else 0.2 for row in rows]),
    )
    found = measure({"side": [row[0] for row in rows]}, outcome, 2)["columns"]["side"]
    for name in ("tpr_gap", "fpr_gap", "calibration_gap"):
        best = at_best(found, name)
        if found[name] is not None:
            assert best is not None
            assert 0 <= best <= found[name] + 1e-9
    best, ratio = at_best(found, "selection_ratio"), found["selection_ratio"]
    assert best is None or best >= ratio
