"""The BentoML services: BentoML's health and hooks around the mounted routes."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from services.server import bento
from services.server.lifecycle import MODALITIES

GOOD = {"instances": [{"amount": 500, "country": "AT"}]}


@pytest.fixture(scope="module")
def bento_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bentoml")


@pytest.fixture
def client(
    make_bundle: Any, serve: Any, bento_home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[TestClient, Any]]:
    """The tabular service; `serve` is asked for because it brings the fake engine."""
    monkeypatch.setenv("BENTOML_HOME", str(bento_home))
    runtime = MODALITIES.get("tabular").make()
    monkeypatch.setattr("services.server.bento.configure_logging", lambda: None)
    monkeypatch.setattr("services.server.bento._settle", lambda: None)
    monkeypatch.setenv("FAIRLEAD_SERVICE_BUNDLE", str(make_bundle().path))
    with TestClient(bento.served_app(runtime)) as running:
        assert running.portal is not None
        running.portal.call(runtime.loaded)
        yield running, runtime


def test_health_is_bentoml_s_and_readiness_ours(client: tuple[TestClient, Any]) -> None:
    http, runtime = client
    for path in ("/livez", "/readyz", "/livez/", "/readyz/", "/healthz/", "/startupz/"):
        assert http.get(path, follow_redirects=False).status_code == 200, path
    assert http.get("/startupz").status_code == 200
    runtime.state = "draining"
    answer = http.get("/readyz")
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:fairlead:problem:draining")
    assert answer.headers["content-type"] == "application/problem+json"
    assert http.get("/livez").status_code == 200
    assert http.get("/startupz").status_code == 200, "a service that stops has started"


def test_our_routes_are_reached_through_bentoml(client: tuple[TestClient, Any]) -> None:
    http, _ = client
    assert http.post("/predict", json=GOOD).json()["predictions"][0]["label"] == "fraud"
    assert http.get("/v2/models/payments/ready").json() == {"name": "payments", "ready": True}
    assert "fairlead_requests_total" in http.get("/metrics").text
    assert "googletagmanager" not in http.get("/").text
    assert http.get("/docs.json").json()["info"]["title"].startswith("payments")
    assert http.get("/nothing").headers["content-type"] == "application/problem+json"


def test_what_is_loaded_is_no_work_for_the_collector() -> None:
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    frozen, loaded = gc.get_freeze_count(), [[] for _ in range(10_000)]
    gc.set_threshold(700)
    try:
        bento._settle()
        assert gc.get_freeze_count() - frozen >= len(loaded)
        assert gc.get_threshold()[0] >= 10_000
        assert sys.getswitchinterval() < 0.001
    finally:
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)
