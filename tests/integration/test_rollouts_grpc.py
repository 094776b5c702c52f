"""Two versions that take gRPC behind the real router: the split, who keeps a version, and a version that dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from contracts.bundle import Bundle
from contracts.ports import free_port
from deploy.cli.machine.ports import HOST
from deploy.cli.serving.endpoint import Endpoint
from deploy.cli.serving.fleet import LocalFleet
from services.oip import oip_pb2 as oip
from services.rollout.envoy import ENTITY_HEADER, Address
from services.server.launch import serve_command
from tests.problem_bundles import linear_prices
from tests.servers import wait_for

pytestmark = pytest.mark.integration
grpc = pytest.importorskip("grpc")


class Version(Endpoint):
    """An `Endpoint` of a bundle in a folder, without a registry."""

    def __init__(self, folder: Path, bundle: Bundle, version: str, port: int, grpc_port: int) -> None:
        self.name, self.version, self.host, self.port, self.bundle = "prices", version, HOST, port, bundle
        self.url, self.log = f"http://{HOST}:{port}", folder / f"{version}.log"
        own = {"grpc_port": grpc_port, "grpc_host": HOST}
        self._command = serve_command(
            "tabular", str(bundle.path), port=port, name="prices", version=version, settings=own
        )
        self._child = None


def question() -> Any:
    inputs = [
        oip.ModelInferRequest.InferInputTensor(
            name=name, datatype="FP64", shape=[1], contents=oip.InferTensorContents(fp64_contents=[value])
        )
        for name, value in (("size", 50.0), ("rooms", 2.0))
    ]
    return oip.ModelInferRequest(model_name="prices", inputs=inputs)


class Clients:
    """Clients that ask without a pause, each for an entity of its own; `seen` counts versions, "" for no answer."""

    def __init__(self, port: int, count: int = 8) -> None:
        self.seen: list[Counter[str]] = [Counter() for _ in range(count)]
        self._port, self._ended = port, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(at,)) for at in range(count)]
        for thread in self._threads:
            thread.start()

    def _ask(self, at: int) -> None:
        with grpc.insecure_channel(f"{HOST}:{self._port}") as channel:
            infer = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                request_serializer=oip.ModelInferRequest.SerializeToString,
                response_deserializer=oip.ModelInferResponse.FromString,
            )
            while not self._ended.wait(0.02):
                try:
                    answer = infer(question(), timeout=10, metadata=[(ENTITY_HEADER, f"person {at}")])
                    self.seen[at][answer.model_version] += 1
                except grpc.RpcError:
                    self.seen[at][""] += 1

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def test_grpc_is_split_by_weight_stays_with_its_entity_and_survives_a_version(tmp_path: Path) -> None:
    bundle = linear_prices(tmp_path / "made")
    http, over_grpc = (Address(HOST, free_port()) for _ in range(2))
    fleet = LocalFleet(
        tmp_path / "fleet",
        (http,),
        lambda version, port, grpc_port: Version(tmp_path, bundle, version, port, grpc_port),
        lambda version, reason: None,
        time.monotonic,
        grpc=over_grpc,
    )
    clients = None
    try:
        fleet.arrange("1", "2", 50, False)
        for version in ("1", "2"):
            fleet.endpoint(version).wait_ready()
        wait_for(f"http://{HOST}:{http.port}/readyz", tmp_path / "fleet" / "envoy.log")
        end = time.monotonic() + 20
        while not all((fleet.router.seen() or {}).get(version, (False, 0))[0] for version in ("1", "2")):
            assert time.monotonic() < end
            time.sleep(0.1)
        clients = Clients(over_grpc.port)
        time.sleep(1)
        before = [Counter(one) for one in clients.seen]
        assert {version for one in before for version in one} == {"1", "2"}
        assert all(len(one) == 1 for one in before), "an entity stays with its version"
        observed = fleet.observe("1", "2").candidate
        assert observed is not None
        assert observed.counts is not None
        assert observed.counts.requests > 0, "what comes over gRPC is judged"
        os.kill(fleet.endpoint("2").pid or 0, signal.SIGTERM)
        time.sleep(1.5)
        clients.stop()
        assert all(one[""] <= 1 for one in clients.seen), "no more is lost than was in flight"
        assert sum((now - then for now, then in zip(clients.seen, before, strict=True)), Counter())["1"] > 0
    finally:
        if clients is not None:
            clients.stop()
        fleet.stop()
