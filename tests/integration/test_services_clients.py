"""Clients of the Open Inference Protocol that exist, against a service as a real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from contracts.bundle import Bundle
from contracts.ports import free_port
from services.server.launch import serve_command
from tests.bench.serving_models import four_floats
from tests.integration.test_services import Service, services
from tests.unit.services.test_addresses import has_ipv6

pytestmark = pytest.mark.integration
BODY = {"instances": [{"a": 0.5, "b": 1.5, "c": -2.0, "d": 3.0}]}


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return four_floats(tmp_path_factory.mktemp("floats"))


@pytest.fixture(scope="module")
def served(floats: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, int]]:
    """A service over both protocols."""
    grpc_port = free_port()
    with services(tmp_path_factory.mktemp("served")) as begin:
        service = begin(floats, grpc_port=grpc_port)
        service.wait()
        yield service, grpc_port


TRITON = """
import itertools, sys, numpy as np
http_port, grpc_port = sys.argv[1:]
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
values = dict(a=0.5, b=1.5, c=-2.0, d=3.0)
for module, port in ((over_http, http_port), (over_grpc, grpc_port)):
    client = module.InferenceServerClient(f"127.0.0.1:{port}")
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("floats")
    metadata = client.get_model_metadata("floats")
    names = [one["name"] if isinstance(one, dict) else one.name for one in
             (metadata["inputs"] if isinstance(metadata, dict) else metadata.inputs)]
    assert names == list(values), names
    for binary, packed in itertools.product((True, False), (None, "gzip", "deflate")):
        inputs = []
        for name, value in values.items():
            tensor = module.InferInput(name, [3], "FP64")
            array = np.full(3, value)
            tensor.set_data_from_numpy(array, binary) if module is over_http else tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        more = dict(binary_data=binary) if module is over_http else {}
        option = "request_compression_algorithm" if module is over_http else "compression_algorithm"
        outputs = [module.InferRequestedOutput(name, **more) for name in ("probabilities", "label")]
        result = client.infer("floats", inputs, outputs=outputs, **{option: packed})
        found = result.as_numpy("probabilities")
        assert found.shape == (3, 2), found
        labels = [one.decode() if isinstance(one, bytes) else one for one in result.as_numpy("label").ravel()]
        print(float(found[0, 1]), labels[0])
"""


def test_the_triton_client_talks_to_it_packed_and_not(served: tuple[Service, int]) -> None:
    pytest.importorskip("tritonclient")
    agree(served[0], [sys.executable, "-W", "ignore", "-c", TRITON], served[1], 12)


def agree(service: Service, argv: list[str], grpc_port: int, answers: int) -> None:
    """Run a client that prints score and label of each answer: all are those of ``/predict``."""
    ran = subprocess.run(
        [*argv, str(service.http.base_url.port), str(grpc_port)], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    expected = service.http.post("/predict", json=BODY).json()["predictions"][0]
    for line in ran.stdout.splitlines():
        number, label = line.split()
        assert float(number) == pytest.approx(expected["probabilities"]["yes"])
        assert label == expected["label"]
    assert len(ran.stdout.splitlines()) == answers


KSERVE = """
import asyncio, sys, numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
http_url, grpc_port = f"http://127.0.0.1:{sys.argv[1]}", sys.argv[2]
values = dict(a=0.5, b=1.5, c=-2.0, d=3.0)

def request(binary):
    inputs = []
    for name, value in values.items():
        inputs.append(InferInput(name, [3], "FP64"))
        inputs[-1].set_data_from_numpy(np.full(3, value), binary_data=binary)
    return InferRequest("floats", inputs)

def show(response):
    found = {output.name: output.as_numpy() for output in response.outputs}
    label = found["label"].ravel()[0]
    print(float(found["probabilities"].reshape(3, 2)[0, 1]), label.decode() if isinstance(label, bytes) else label)

async def main():
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(http_url) and await client.is_server_ready(http_url)
    assert await client.is_model_ready(http_url, "floats")
    for binary in (True, False):
        show(await client.infer(http_url, request(binary), model_name="floats"))
    over_grpc = InferenceGRPCClient(f"127.0.0.1:{grpc_port}")
    assert await over_grpc.is_server_live() and await over_grpc.is_server_ready()
    assert await over_grpc.is_model_ready("floats")
    show(await over_grpc.infer(request(True)))

asyncio.run(main())
"""


def test_the_kserve_client_talks_to_it(served: tuple[Service, int]) -> None:
    """Its psutil is older than ours, so it lives in an environment of its own."""
    python = os.environ.get("FAIRLEAD_TEST_KSERVE")
    if not python:
        pytest.skip("FAIRLEAD_TEST_KSERVE names no Python with kserve")
    agree(served[0], [python, "-W", "ignore", "-c", KSERVE], served[1], 3)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_clients_and_pages_reach_it_in_both_families(floats: Bundle, tmp_path: Path) -> None:
    grpc_port = free_port()
    cors = {"cors.origins": ["https://shop.example"]}
    with services(tmp_path) as begin:
        service = begin(floats, host="::", grpc_port=grpc_port, grpc_host="::", **cors)
        service.wait()
        agree(service, [sys.executable, "-W", "ignore", "-c", TRITON], grpc_port, 12)
        asked = {"origin": "https://shop.example", "access-control-request-method": "POST"}
        with httpx.Client(base_url=f"http://[::1]:{service.http.base_url.port}") as client:
            for _ in range(2):  # over one connection
                answer = client.options("/predict", headers=asked)
                assert (answer.status_code, answer.headers["access-control-allow-methods"]) == (204, "POST")
                assert client.post("/predict", json=BODY).status_code == 200


def test_a_port_in_use_ends_the_process_with_a_reason(served: tuple[Service, int], floats: Bundle) -> None:
    port = served[0].http.base_url.port
    assert port is not None
    command = serve_command("tabular", str(floats.path), port=port)
    ran = subprocess.run(list(command.argv), env=command.env, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 3
    assert json.loads(ran.stderr.splitlines()[-1])["headline"] == f"port {port} is in use"
