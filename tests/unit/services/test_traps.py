"""The defects of the serving framework that are known to bite, and that this service is free of each of them."""

from __future__ import annotations

import ast
import asyncio
import gc
import os
import tomllib
import weakref
from pathlib import Path
from typing import Any

import pytest

from contracts import metric_names as names
from services.server.bento import CONFIG, asgi_app, bento_service
from services.server.lifecycle import MODALITIES
from services.server.requests import Scope

ROOT = Path(__file__).parents[3]
GOOD = {"amount": 500, "country": "AT"}


def calls_of(name: str) -> list[str]:
    """The files of services/ that use ``bentoml.<name>``."""
    found = []
    for file in sorted((ROOT / "services").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and node.attr == name and getattr(node.value, "id", "") == "bentoml":
                found.append(file.name)
    return found


def test_trap_1_requirements_are_ranges_that_an_index_can_fill() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    lines = [line for name in ("serving", *MODALITIES.names()) for line in extras[name]]
    assert not [line for line in lines if "==" in line]


@pytest.mark.parametrize("modality", MODALITIES.names())
def test_trap_2_no_request_crosses_a_client_session_that_closes(modality: str) -> None:
    assert not bento_service(MODALITIES.get(modality).make()).dependencies
    assert calls_of("depends") == []


class _Scope(dict[str, Any]):
    """A scope that can be watched."""


def test_trap_3_an_answered_request_is_freed_without_the_collector(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())
    app = asgi_app(served.runtime)
    body = b'{"instances": [{"amount": 500, "country": "AT"}]}'

    async def one() -> weakref.ref[Any]:
        scope: Scope = _Scope(
            type="http", method="POST", path="/predict", headers=[(b"content-type", b"application/json")]
        )

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None: ...

        await app(scope, receive, send)
        return weakref.ref(scope)

    async def story() -> list[bool]:
        gone = [await one() for _ in range(3)]
        await asyncio.sleep(0.05)  # the one timer of all requests has looked once
        return [ref() is None for ref in gone]

    gc.collect()
    gc.disable()
    try:
        assert served.client.portal is not None
        assert served.client.portal.call(story) == [True] * 3
    finally:
        gc.enable()


@pytest.mark.parametrize("modality", MODALITIES.names())
def test_trap_4_no_schema_is_built_per_request(modality: str) -> None:
    service = bento_service(MODALITIES.get(modality).make())
    assert not service.apis, "mounted routes only: typed ones rebuild their schemas"


def test_trap_5_one_worker_so_that_its_end_is_the_pod_s() -> None:
    assert CONFIG["workers"] == 1


@pytest.mark.parametrize("inline_ms", [0, 10], ids=["on a thread", "on the loop"])
def test_trap_5_a_model_that_ends_its_thread_ends_readiness_and_liveness(
    serve: Any, make_bundle: Any, inline_ms: float
) -> None:
    served = serve(make_bundle(), inline_ms=inline_ms)
    served.engine.error = SystemExit(1)
    assert served.predict(GOOD).status_code == 500
    assert not served.runtime.ready
    assert not served.runtime.alive
    again = served.predict(GOOD)
    assert (again.status_code, again.json()["type"]) == (503, "urn:fairlead:problem:crashed")


def test_trap_6_paths_that_do_not_exist_make_one_series(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())

    def routes(paths: int) -> set[str | None]:
        for at in range(paths):
            served.client.get(f"/scan/{at}")
        families = served.runtime.metrics.registry.collect()
        return {sample.labels.get("route") for family in families for sample in family.samples}

    first = routes(1)
    assert names.UNMATCHED_ROUTE in first
    assert routes(50) == first


def test_trap_7_who_is_draining_says_so_and_asks_clients_to_leave(serve: Any, make_bundle: Any) -> None:
    served = serve(make_bundle())
    served.runtime.state = "draining"
    answer = served.predict(GOOD)
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    assert served.client.get("/v2/health/ready").status_code == 503


def test_trap_8_two_prediction_logs_in_a_process_do_not_mix(serve: Any, make_bundle: Any, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, name in ((one, "a"), (two, "b")):
        served = serve(make_bundle(), name=name, predictions={"folder": str(folder)})
        served.predict(GOOD)
        served.runtime.log.close()
    for folder, name in ((one, "a"), (two, "b")):
        lines = [line for file in folder.rglob("*.jsonl") for line in file.read_text().splitlines()]
        assert len(lines) == 1
        assert f'"model":"{name}"' in lines[0]
    assert calls_of("monitor") == []


@pytest.mark.parametrize("media", ["application/vnd.bentoml+pickle", "application/octet-stream", "text/plain"])
def test_trap_9_nothing_unpickles(serve: Any, make_bundle: Any, media: str) -> None:
    client = serve(make_bundle()).client
    for path in ("/predict", "/v2/models/payments/infer"):
        assert (
            client.post(path, content=b"cos\nsystem\n(S'true'\ntR.", headers={"content-type": media}).status_code == 415
        )


def test_trap_10_metrics_live_in_memory(serve: Any, make_bundle: Any) -> None:
    before = os.environ.get("PROMETHEUS_MULTIPROC_DIR")  # other libraries in this process may have set it
    serve(make_bundle())
    assert os.environ.get("PROMETHEUS_MULTIPROC_DIR") == before
    assert CONFIG["metrics"] == {"enabled": False}
