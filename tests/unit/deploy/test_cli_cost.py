"""What a run cost: the larger of asked and used, idle shown, money only where somebody said prices."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import fairlead
from contracts.errors import PlatformError
from deploy.cli.app import app
from deploy.cli.monitoring.prometheus import PrometheusApi
from deploy.cli.monitoring.served_cost import of_endpoint, of_prometheus
from deploy.cli.profiles.loading import load_endpoints, load_profile
from deploy.cli.training.cost import run_cost
from pipelines.cost import Prices, in_words, step_cost
from pipelines.resources import STEPS, Resources

PRICES = Prices(currency="CHF", core_hour=0.04, gib_hour=0.01, gpu_hour=2.0)
HOUR = 3600.0
STEPS_RUN = {
    "ingest": {"status": "finished", "seconds": HOUR, "cpu_seconds": HOUR / 2, "memory_peak": 2**30},
    "validate": {"status": "cached", "seconds": 0.0},
    "train": {"status": "failed", "seconds": HOUR / 2, "cpu_seconds": HOUR, "memory_peak": 4 * 2**30},
    "gate": {"status": "waiting", "seconds": None},
}


def test_on_this_machine_a_step_costs_what_it_used() -> None:
    found = run_cost({"task": "fraud", "steps": STEPS_RUN}, PRICES, on_cluster=False)
    assert [step["step"] for step in found["steps"]] == ["ingest", "train"]
    assert found["core_hours"] == pytest.approx(0.5 + 1.0)
    assert found["gib_hours"] == pytest.approx(1.0 + 2.0)
    assert found["money"] == pytest.approx(0.04 * 1.5 + 0.01 * 3.0)
    assert (found["idle_money"], found["gpu_hours"]) == (0.0, 0.0)
    assert in_words(found) == "0.09 CHF; 1.5 core hours, 3 GiB hours"


def test_on_a_cluster_what_was_asked_for_and_not_used_is_idle() -> None:
    asked = Resources(cpu="2", memory="4Gi", gpus=1)
    found = step_cost("train", {"seconds": HOUR, "cpu_seconds": HOUR / 2, "memory_peak": 2**30}, asked, PRICES, 1)
    assert (found.core_hours, found.gib_hours, found.gpu_hours) == (2.0, 4.0, 1.0)
    assert (found.idle_core_hours, found.idle_gib_hours) == (1.5, 3.0)
    assert found.money == pytest.approx(2 * 0.04 + 4 * 0.01 + 2.0)
    assert found.idle_money == pytest.approx(1.5 * 0.04 + 3 * 0.01)


def test_settings_of_the_run_say_what_its_pods_asked_for() -> None:
    run = {"task": "fraud", "settings": {"resources.train.gpus": 1}, "steps": {"train": STEPS_RUN["train"]}}
    (train,) = run_cost(run, PRICES, on_cluster=True)["steps"]
    assert train["gpu_hours"] == 0.5
    assert train["core_hours"] == 1.0, "more than the request was used"
    assert STEPS["train"].cpu == "500m"


@given(
    st.floats(0, 1e6), st.none() | st.floats(0, 1e6), st.none() | st.integers(0, 2**40), st.booleans(), st.booleans()
)
def test_idle_is_never_negative_and_never_more_than_all(
    took: float, cpu: float | None, peak: int | None, cluster: bool, priced: bool
) -> None:
    step = {"seconds": took, "cpu_seconds": cpu, "memory_peak": peak}
    found = step_cost("train", step, STEPS["train"] if cluster else None, PRICES if priced else None)
    assert -1e-9 <= found.idle_core_hours <= found.core_hours + 1e-9
    assert -1e-9 <= found.idle_gib_hours <= found.gib_hours + 1e-9
    assert (found.money is None) is not priced
    assert found.money is None or found.idle_money is None or found.idle_money <= found.money + 1e-9


def test_a_step_of_an_earlier_version_that_says_nothing_counts_with_one_core() -> None:
    found = step_cost("train", {"seconds": HOUR}, None, PRICES)
    assert (found.core_hours, found.gib_hours, found.idle_core_hours) == (1.0, 0.0, 0.0)


def test_a_price_of_zero_is_a_price() -> None:
    found = run_cost({"task": "fraud", "steps": STEPS_RUN}, Prices(), on_cluster=False)
    assert (found["money"], found["currency"]) == (0.0, "EUR")


@pytest.fixture
def priced(tmp_path: Path) -> str:
    file = tmp_path / "mine.yaml"
    file.write_text("home: .fairlead\nprices: {currency: CHF, core_hour: 0.04, gib_hour: 0.01}\n")
    return str(file)


def test_runs_and_their_steps_are_listed_with_their_money(
    priced: str, write_run: Callable[..., Path], fairlead_command: Callable[..., Any]
) -> None:
    write_run("fraud-1", steps=STEPS_RUN, status="succeeded")
    write_run("fraud-2", steps={"ingest": STEPS_RUN["ingest"]})
    listed = fairlead_command("cost", "--profile", priced)
    assert "CHF" in listed.out
    assert "0.09" in listed.out
    assert "all" in listed.out
    (one,) = fairlead_command("cost", "fraud-1", "--profile", priced, "--json").json
    assert [step["step"] for step in one["steps"]] == ["ingest", "train"]
    assert one["money"] == pytest.approx(0.09)
    steps = fairlead_command("cost", "fraud-1", "--profile", priced).out
    assert "train" in steps
    shown = fairlead_command("runs", "fraud-1", "--profile", priced)
    assert "Cost     0.09 CHF; 1.5 core hours, 3 GiB hours" in shown.out
    assert fairlead.get_run("fraud-1", profile=priced).cost["money"] == pytest.approx(0.09)


def test_without_prices_hours_are_shown_and_how_to_say_them(
    write_run: Callable[..., Path], fairlead_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no cost" in fairlead_command("cost").out
    write_run("fraud-1", steps=STEPS_RUN)
    said = fairlead_command("cost").out
    assert "1.5 " in said
    assert "prices: {core_hour" in said
    monkeypatch.setenv("FAIRLEAD_PRICES__CORE_HOUR", "2")
    assert fairlead_command("cost", "--json").json[0]["money"] == pytest.approx(3.0)


def test_a_price_that_is_none_is_refused_and_steps_never_see_one(
    priced: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_profile(priced).prices is not None
    assert "prices" not in load_endpoints(priced).model_dump()
    monkeypatch.setenv("FAIRLEAD_PRICES__GPU_HOUR", "-1")
    with pytest.raises(PlatformError) as caught:
        load_profile("local")
    assert "gpu_hour" in str(caught.value).lower()


@pytest.fixture
def fairlead_command(home: Path, call: Callable[..., Any]) -> Callable[..., Any]:
    return call


METRICS = """
process_start_time_seconds {started}
fairlead_core_seconds_total{{model="fraud",state="used"}} 3600
fairlead_core_seconds_total{{model="fraud",state="idle"}} 7200
fairlead_memory_byte_seconds_total{{model="fraud",state="used"}} {gib_hour}
fairlead_memory_byte_seconds_total{{model="fraud",state="idle"}} {gib_hour}
fairlead_gpu_seconds_total{{model="fraud"}} 3600
fairlead_requests_total{{model="fraud",version="1",route="/predict",code="200"}} 900
fairlead_requests_total{{model="fraud",version="1",route="/predict",code="422"}} 100
fairlead_requests_total{{model="fraud",version="1",route="/metrics",code="200"}} 5000
"""


def test_an_endpoint_says_what_a_day_and_1000_requests_cost(
    serve: Callable[[dict[str, object]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = serve({"/metrics": METRICS.format(started=time.time() - 12 * HOUR, gib_hour=2.0**30 * HOUR)})
    (found,) = of_endpoint(url, PRICES)
    assert (found.core_hours, found.gib_hours, found.gpu_hours, found.requests) == (3.0, 2.0, 1.0, 1000.0)
    assert found.money == pytest.approx(3 * 0.04 + 2 * 0.01 + 2.0)
    assert found.idle_money == pytest.approx(2 * 0.04 + 0.01)
    assert found.per_day == pytest.approx(2 * 2.14, rel=1e-3)
    assert found.per_1000_requests == pytest.approx(2.14)
    (unpriced,) = of_endpoint(url, None)
    assert (unpriced.money, unpriced.per_day, unpriced.currency) == (None, None, None)
    monkeypatch.setenv("FAIRLEAD_PRICES__CORE_HOUR", "0.5")
    done = CliRunner().invoke(app, ["cost", "--served", url, "--json"])
    assert json.loads(done.output)[0]["money"] == 1.5
    done = CliRunner().invoke(app, ["cost", "--served", url])
    assert {"fraud", "1,000", "a day"} <= {word.strip() for word in done.output.replace("  ", "\n").splitlines()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fraud-1", "--served", "http://127.0.0.1:9"], "of what shall the cost be shown?"),
        (["--served", "127.0.0.1:3000"], "not an address"),
        (["--served", "http://127.0.0.1:9"], "the endpoint gives no metrics"),
        (["--prometheus", "http://127.0.0.1:9"], "Prometheus does not answer"),
    ],
)
def test_what_cannot_be_costed_is_said(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["cost", *arguments])
    assert done.exit_code != 0
    assert said in done.output


def test_an_endpoint_of_others_is_said(serve: Callable[[dict[str, object]], str]) -> None:
    with pytest.raises(PlatformError, match="does not say what it holds"):
        of_endpoint(serve({"/metrics": "up 1\n"}), PRICES)


def test_prometheus_gives_the_cost_of_every_model_of_some_days() -> None:
    asked = []

    class Answers:
        def by_model(self, query: str) -> dict[str, float]:
            asked.append(query)
            if "core" in query:
                return {"fraud": HOUR, "chat": 2 * HOUR} if "used" in query else {"fraud": HOUR}
            return {"fraud": 500.0, "else": 3.0} if "requests" in query else {}

    chat, fraud = of_prometheus(cast(PrometheusApi, Answers()), 2.0, PRICES)
    assert (chat.model, chat.core_hours, chat.per_1000_requests) == ("chat", 2.0, None)
    assert (fraud.model, fraud.core_hours, fraud.idle_core_hours) == ("fraud", 2.0, 1.0)
    assert fraud.per_day == pytest.approx(0.04)
    assert fraud.per_1000_requests == pytest.approx(0.16)
    assert all("[2880m]" in query for query in asked)
