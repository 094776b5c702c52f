"""Tiny bundles, an engine that needs no library, and a running service over both."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from contracts import storage
from contracts.bundle import Bundle, write_bundle
from contracts.engine import Reason
from contracts.errors import PlatformError
from services.model.runtime import OpenLookup, RowRuntime
from services.server.bento import asgi_app
from services.server.lifecycle import MODALITIES
from services.settings import ServiceSettings
from services.tabular.encrypted import TabularRuntime
from tests.s3_folder import FolderClient

AMOUNT = {"name": "amount", "dtype": "float64", "minimum": 0, "maximum": 10000}
COUNTRY = {"name": "country", "dtype": "string", "categories": ["AT", "DE"]}
PLAIN = {"inputs": [AMOUNT, COUNTRY], "classes": ["genuine", "fraud"]}
TEXT = {
    "inputs": [{"name": "title", "dtype": "string"}, {"name": "content", "dtype": "string"}],
    "classes": ["culture", "science", "sports"],
}
DECISION = {"positive": "fraud", "threshold": 0.3, "false_positive_cost": 1, "false_negative_cost": 10}


def fake_probability(amount: float) -> float:
    """What `FakeEngine` says about a row with this amount."""
    return 0.0 if np.isnan(amount) else float(min(max(amount, 0) / 1000, 1))


class FakeEngine:
    """fraud = amount / 1000; or for text, the share of each class by the length of the title."""

    def __init__(self, bundle: Bundle) -> None:
        self.classes = len(bundle.document.signature.output.classes)  # type: ignore[attr-defined]
        self.blocked: threading.Event | None = None
        self.error: Exception | None = None
        self.seen: list[dict[str, Any]] = []

    def predict(self, columns: Mapping[str, Any]) -> Any:
        if self.blocked is not None:
            self.blocked.wait(5)
        if self.error is not None:
            raise self.error
        self.seen.append({name: values.tolist() for name, values in columns.items()})
        if self.classes == 3:
            rows = len(columns["title"])
            return np.tile([0.2, 0.5, 0.3], (rows, 1))
        fraud = np.array([fake_probability(value) for value in columns["amount"]])
        return np.column_stack([1 - fraud, fraud])

    def explain(self, columns: Mapping[str, Any], top: int) -> list[list[Reason]]:
        if self.classes == 3:
            raise PlatformError("this model gives no reasons", code="not_explainable")
        one = [Reason(feature="amount", value=1.0, contribution=2.5), Reason(feature="x", value=None, contribution=-1)]
        return [one[:top] for _ in next(iter(columns.values()))]


class Served:
    """A running service: `client` talks to it, `engine` is what it asks."""

    def __init__(self, client: TestClient, runtime: RowRuntime) -> None:
        self.client, self.runtime = client, runtime

    @property
    def engine(self) -> FakeEngine:
        return self.runtime.model().engine  # type: ignore[return-value]

    def predict(self, *instances: Any, **members: Any) -> Any:
        return self.client.post("/predict", json={"instances": list(instances), **members})

    def ask(self, url: str, key: str, document: Any = None) -> bytes:
        """In the place of `services.server.golden`'s request."""
        return (self.client.get(url) if document is None else self.client.post(url, json=document)).content

    def metric(self, name: str, **labels: str) -> float:
        return self.runtime.metrics.registry.get_sample_value(name, labels) or 0.0


BundleMaker = Callable[..., Bundle]
Server = Callable[..., Served]


@pytest.fixture
def make_bundle(tmp_path: Path) -> BundleMaker:
    """Write a bundle: `golden` are (inputs, probabilities) pairs, the rest are fields of the document."""

    def make(
        signature: Mapping[str, Any] = PLAIN,
        golden: Sequence[tuple[Mapping[str, Any], Sequence[float]]] | None = None,
        plan: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> Bundle:
        source = tmp_path / "source"
        (source / "model").mkdir(parents=True, exist_ok=True)
        (source / "model" / "model.txt").write_text("tree\n")
        if golden is None:
            golden = [(dict.fromkeys(item["name"] for item in signature["inputs"]) | {"amount": 250}, [0.75, 0.25])]
        lines = [json.dumps({"inputs": inputs, "probabilities": values}) for inputs, values in golden]
        (source / "golden.jsonl").write_text("\n".join(lines) + "\n")
        if plan is not None:
            (source / "features.json").write_text(json.dumps(plan))
        fields = {
            "name": "payments",
            "task": "payments",
            "recipe": "base",
            "modality": "tabular",
            "engine": "lightgbm",
            "signature": signature,
            "decision": DECISION,
            "gate": {"passed": True, "checks": []},
            "lineage": {
                "code_version": "c",
                "data_version": "d",
                "source": "s",
                "seed": 1,
                "created": "2026-01-01T00:00:00Z",
            },
        }
        return write_bundle(source, tmp_path / "bundles", fields | changes)

    return make


@pytest.fixture
def make_text_bundle(make_bundle: BundleMaker) -> Callable[[], Bundle]:
    """Write a text bundle with three classes and no decision."""

    def make() -> Bundle:
        golden = [({"title": "a", "content": "b"}, [0.2, 0.5, 0.3])]
        return make_bundle(TEXT, golden, name="articles", modality="text", engine="onnx", decision=None)

    return make


@pytest.fixture
def serve_bundle() -> Iterator[Server]:
    """Start a service over a bundle; keyword arguments are settings."""
    with contextlib.ExitStack() as stack:

        def start(bundle: Bundle | Path, open_lookup: OpenLookup | None = None, **settings: Any) -> Served:
            modality = bundle.document.modality if isinstance(bundle, Bundle) else "tabular"
            path = bundle.path if isinstance(bundle, Bundle) else bundle
            runtime = MODALITIES.get(modality).make()
            if open_lookup is not None:
                runtime = TabularRuntime(MODALITIES.get(modality), open_lookup=open_lookup)

            @contextlib.asynccontextmanager
            async def lifespan(_: Any) -> AsyncIterator[None]:
                await runtime.start(ServiceSettings(bundle=str(path), version="3", **settings))
                await runtime.loaded()
                yield
                await runtime.stop()

            app = Starlette(routes=[Mount("/", app=asgi_app(runtime))], lifespan=lifespan)
            return Served(stack.enter_context(TestClient(app, raise_server_exceptions=False)), runtime)

        yield start


@pytest.fixture
def serve(serve_bundle: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The same with the fake engine."""
    monkeypatch.setattr("services.model.runtime.load_engine", lambda bundle, **_: FakeEngine(bundle))
    return serve_bundle


@pytest.fixture(params=["folder", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A prediction log, on this disk and in S3."""
    if request.param == "folder":
        return str(tmp_path)
    client = FolderClient(tmp_path)
    (tmp_path / "lake").mkdir()
    monkeypatch.setattr(storage, "_client", lambda: client)
    return "s3://lake/predictions"
