"""What Prometheus gets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from contracts import metric_names as names
from services.metrics.held import Held, ProcessTree
from services.settings import AskedSettings

GOOD = {"amount": 500, "country": "AT"}


def scrape(served: Any) -> dict[str, list[Any]]:
    text = served.client.get("/metrics").text
    return {family.name: family.samples for family in text_string_to_metric_families(text)}


def test_every_metric_of_the_contract_is_exported_with_its_labels(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())
    served.predict(GOOD)
    families = scrape(served)
    lookups = {names.FEATURE_AGE, names.FEATURE_STATUS}  # only of models with online features
    for name, labels in names.LABELS.items():
        if name in (names.VALUE, names.ANSWER_WORDS, names.LIST_DIVERSITY, names.OBJECTS):
            continue  # of other problems
        samples = families[name.removesuffix("_total")]
        assert samples or name in lookups, name
        for sample in samples:
            assert set(sample.labels) - {"le"} == set(labels)
    assert not any("created" in name for name in families)


def test_label_sets_exist_before_the_first_request(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())
    registry = served.runtime.metrics.registry
    for label in ("genuine", "fraud"):
        labels = {"model": "payments", "version": "3", "label": label}
        assert registry.get_sample_value(names.PREDICTIONS, labels) == 0
    labels = {"model": "payments", "version": "3", "route": "/predict", "code": "500"}
    assert registry.get_sample_value(names.REQUESTS, labels) == 0


def test_requests_are_counted_by_template_and_status(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())
    served.predict(GOOD)
    served.predict({})
    for path in ("/a", "/b", "/v2/models/x", "/v2/models/y"):
        served.client.get(path)
    both = {"model": "payments", "version": "3"}
    assert served.metric(names.REQUESTS, **both, route="/predict", code="200") == 1
    assert served.metric(names.REQUESTS, **both, route="/predict", code="422") == 1
    assert served.metric(names.REQUESTS, **both, route="<unmatched>", code="404") == 2
    assert served.metric(names.REQUESTS, **both, route="/v2/models/{name}", code="404") == 2
    assert served.metric(f"{names.REQUEST_SECONDS}_count", **both, route="/predict") == 2
    assert served.metric(names.INFLIGHT, model="payments") == 0


def test_predictions_scores_and_stages_are_observed(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())
    served.predict(GOOD, {"amount": 1, "country": "AT"}, explain=1)
    both = {"model": "payments", "version": "3"}
    assert served.metric(names.PREDICTIONS, **both, label="fraud") == 1
    assert served.metric(names.PREDICTIONS, **both, label="genuine") == 1
    assert served.metric(f"{names.SCORE}_count", **both) == 2
    for stage in ("decode", "infer", "explain", "encode"):
        assert served.metric(f"{names.STAGE_SECONDS}_count", model="payments", stage=stage) == 1


def test_the_model_is_described(serve: Any, make_bundle: Any) -> None:
    bundle = make_bundle()
    served = serve(bundle)
    labels = {"model": "payments", "version": "3", "digest": bundle.digest[:12], "recipe": "base"}
    assert served.metric(names.MODEL_INFO, **labels) == 1
    assert served.metric(names.MODEL_LOAD_SECONDS, model="payments") > 0


TEXT, OPEN = "text/plain; version=0.0.4; charset=utf-8", "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;"
    "q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/plain", TEXT),
        ("text/html,application/xhtml+xml,*/*;q=0.8", TEXT),
        ("application/json", TEXT),
        (PROMETHEUS_3, f"{OPEN}; escaping=allow-utf-8"),
        ("application/openmetrics-text", OPEN),
        ("Application/OpenMetrics-Text; Version=1.0.0", OPEN),
        ("application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5", OPEN.replace("1.0.0", "0.0.1")),
        ("application/openmetrics-text;version=2.0.0,text/plain;version=0.0.4;q=0.5", TEXT),
        ("application/openmetrics-text;version=1.0.0;q=0.2,text/plain;version=0.0.4;q=0.8", TEXT),
        ("application/openmetrics-text;q=0,*/*", TEXT),
        ("text/plain;version=0.0.4;q=0,application/openmetrics-text;q=0.1", OPEN),
        ("text/plain;version=1.0.0;escaping=dots", "text/plain; version=1.0.0; charset=utf-8; escaping=dots"),
        ("text/plain;version=1.0.0;escaping=evil\tx", "text/plain; version=1.0.0; charset=utf-8"),
        ("text/plain;version=1.0.0", "text/plain; version=1.0.0; charset=utf-8"),
        ("text/plain;version=0.0.4;q=much,;;,=", TEXT),
    ],
)
def test_the_format_is_the_best_that_the_scraper_asks_for(
    serve: Any, make_bundle: Any, accept: str, media: str
) -> None:
    answer = serve(make_bundle()).client.get("/metrics", headers={"accept": accept})
    assert answer.headers["content-type"] == media
    assert answer.text.endswith("# EOF\n") == media.startswith("application/openmetrics-text")
    assert "fairlead_requests_total" in answer.text


class Machine:
    """A clock, and what was used up to its moment."""

    def __init__(self) -> None:
        self.now, self.cpu, self.memory = 100.0, 2.0, 3e9

    def passes(self, seconds: float, cpu: float) -> None:
        self.now, self.cpu = self.now + seconds, self.cpu + cpu


def held(machine: Machine, **asked: float) -> Callable[[], dict[str, float]]:
    registry = CollectorRegistry()
    settings = AskedSettings.model_validate(asked)
    Held("fraud", settings, registry, lambda: (machine.cpu, machine.memory), lambda: machine.now)

    def read() -> dict[str, float]:
        samples = [sample for family in registry.collect() for sample in family.samples]
        return {" ".join([one.name.split("_")[1], one.labels.get("state", "")]).strip(): one.value for one in samples}

    return read


def test_a_service_counts_what_it_holds_and_what_of_that_is_idle() -> None:
    machine = Machine()
    read = held(machine, millicores=2000, memory_bytes=4e9, gpus=1)
    machine.passes(10, cpu=5)
    assert read() == {"core used": 7, "core idle": 13, "memory used": 3e10, "memory idle": 1e10, "gpu": 10}
    machine.passes(10, cpu=40)  # more than was asked for
    machine.memory = 5e9
    assert read() == {"core used": 47, "core idle": 13, "memory used": 8e10, "memory idle": 1e10, "gpu": 20}
    assert read()["core used"] == 47  # nothing has passed


def test_where_nothing_is_asked_for_nothing_is_idle() -> None:
    machine = Machine()
    read = held(machine)
    machine.passes(60, cpu=6)
    found = read()
    assert found["core used"] == 8
    assert [found[name] for name in ("core idle", "memory idle", "gpu")] == [0, 0, 0]


@pytest.mark.integration
def test_processes_that_a_service_starts_count_and_stay_counted() -> None:
    tree = ProcessTree()
    before, _ = tree()
    busy = "import time\nwhile time.process_time() < 0.5: pass\nprint('done', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        running, memory = tree()
        child.communicate(b"\n")
    after, less = tree()
    assert running - before >= 0.4  # kernels count in hundredths
    assert after >= running
    assert memory > less
