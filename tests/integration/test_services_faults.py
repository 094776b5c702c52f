"""What clients, disks and models do wrong, against services as real processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from contracts.ports import free_port
from services.server.auth import make_key
from tests.bench.serving_models import four_floats
from tests.integration.test_services import Service, services

pytestmark = pytest.mark.integration
ROW = {"a": 0.5, "b": 1.5, "c": -2.0, "d": 3.0}
BODY = {"instances": [ROW]}


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return four_floats(tmp_path_factory.mktemp("floats"))


@pytest.fixture(scope="module")
def served(floats: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, int]]:
    """A service with gRPC and short patience."""
    grpc_port = free_port()
    with services(tmp_path_factory.mktemp("served")) as begin:
        service = begin(floats, grpc_port=grpc_port, header_seconds=1.0, timeout_seconds=1.0)
        service.wait()
        yield service, grpc_port


def connect(service: Service) -> socket.socket:
    url = service.http.base_url
    return socket.create_connection((url.host, url.port), timeout=10)


def request_bytes(body: bytes, length: int | None = None) -> bytes:
    head = (
        f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length or len(body)}"
    )
    return head.encode() + b"\r\n\r\n" + body


def test_headers_that_never_end_close_the_connection(served: tuple[Service, int]) -> None:
    with connect(served[0]) as line:
        line.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\n")
        start = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - start < 8:
                line.sendall(b"x-slow: 1\r\n")
                time.sleep(0.2)
        assert time.monotonic() - start < 5


def test_a_body_that_never_ends_is_answered_408_and_closed(served: tuple[Service, int]) -> None:
    with connect(served[0]) as line:
        line.sendall(request_bytes(b'{"instances"', length=500))
        answer = b"".join(iter(lambda: line.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"urn:fairlead:problem:slow-body" in answer
    assert served[0].http.post("/predict", json=BODY).status_code == 200


def test_clients_that_hang_up_in_the_middle_cost_nobody_else(served: tuple[Service, int]) -> None:
    service = served[0]
    stop = threading.Event()

    def rude() -> None:
        while not stop.is_set():
            with connect(service) as line:
                line.sendall(request_bytes(json.dumps(BODY).encode()))

    with ThreadPoolExecutor(6) as pool:
        for _ in range(2):
            pool.submit(rude)
        answers = list(pool.map(lambda _: service.http.post("/predict", json=BODY).status_code, range(100)))
        stop.set()
    assert set(answers) == {200}
    assert "request_failed" not in service.log.read_text()


def test_the_disk_can_change_under_a_service(floats: Any, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(floats.path, copy)
    floats_copy = type(floats)(copy, floats.document, floats.digest)
    with services(tmp_path) as begin:
        service = begin(floats_copy)
        service.wait()
        before = service.http.post("/predict", json=BODY).json()["predictions"][0]["probabilities"]
        (copy / "model" / "model.onnx").write_bytes(b"another model")
        shutil.rmtree(copy)
        after = service.http.post("/predict", json={**BODY, "explain": 2})
        assert after.status_code == 200
        assert after.json()["predictions"][0]["probabilities"] == before
        assert after.json()["version"] == "3"


def test_keys_are_asked_for(floats: Any, tmp_path: Path) -> None:
    key, line = make_key("shop")
    (tmp_path / "keys").write_text(line)
    with services(tmp_path) as begin:
        service = begin(floats, keys_file=str(tmp_path / "keys"))
        service.wait()
        assert service.http.post("/predict", json=BODY).status_code == 401
        assert service.http.post("/predict", json=BODY, headers={"authorization": f"Bearer {key}"}).status_code == 200
        assert key not in service.log.read_text()


def test_a_keys_file_that_is_missing_ends_the_process_with_a_reason(floats: Any, tmp_path: Path) -> None:
    with services(tmp_path) as begin:
        service = begin(floats, keys_file=str(tmp_path / "keys"))
        assert service.process.wait(timeout=60) != 0
        assert "cannot read the API keys" in service.log.read_text()


def test_a_killed_process_is_not_ready(floats: Any, tmp_path: Path) -> None:
    with services(tmp_path) as begin:
        service = begin(floats)
        service.wait()
        service.process.send_signal(signal.SIGSEGV)
        service.process.wait(timeout=10)
        with pytest.raises(httpx.TransportError):
            service.http.get("/readyz")


def test_a_draining_service_answers_and_asks_clients_to_leave(floats: Any, tmp_path: Path) -> None:
    with services(tmp_path) as begin:
        service = begin(floats, drain_seconds=1.0)
        service.wait()
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        answer = service.http.post("/predict", json=BODY)
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert service.http.get("/readyz").status_code == 503
        assert service.process.wait(timeout=20) == 0


def test_memory_and_garbage_stay_flat(floats: Any, tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    with services(tmp_path) as begin:
        service = begin(floats)
        service.wait()
        process = psutil.Process(service.process.pid)

        def load(count: int) -> int:
            with httpx.Client(base_url=service.http.base_url) as client:
                for _ in range(count):
                    client.post("/predict", json=BODY)
            return int(process.memory_info().rss)

        warm = load(1500)
        assert load(3000) < warm * 1.05


def test_schemathesis_finds_no_server_error(served: tuple[Service, int], tmp_path: Path) -> None:
    if find_spec("schemathesis") is None:
        pytest.skip("Schemathesis is not installed")
    url = str(served[0].http.base_url)
    program = str(Path(sys.executable).with_name("schemathesis"))
    argv = [program, "run", f"{url}/openapi.json", "--url", url, "--checks", "not_a_server_error"]
    argv += ["--max-examples", "25", "--seed", "1", "--phases", "examples,coverage,fuzzing", "--no-color"]
    environment = {**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path)}
    ran = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-1000:]


def test_promtool_accepts_the_metrics(served: tuple[Service, int], tmp_path: Path) -> None:
    program = promtool(tmp_path)
    served[0].http.post("/predict", json=BODY)
    text = served[0].http.get("/metrics").content
    ran = subprocess.run([program, "check", "metrics"], input=text, capture_output=True, timeout=30)
    assert ran.returncode == 0, ran.stdout.decode() + ran.stderr.decode()


def promtool(folder: Path) -> str:
    """promtool from the path, or from the test cluster's programs."""
    if found := shutil.which("promtool"):
        return found
    packed = Path(os.environ.get("FAIRLEAD_TEST_CLUSTER", "/nowhere")) / "bin" / "promtool.xz"
    if not packed.exists():
        pytest.skip("promtool is not installed, and FAIRLEAD_TEST_CLUSTER names no folder that has it")
    program = folder / "promtool"
    with program.open("wb") as out:
        subprocess.run(["xz", "-dc", str(packed)], stdout=out, check=True)
    program.chmod(0o755)
    return str(program)


def test_restarts_lose_no_request_of_a_client_that_looks_at_readiness(floats: Any, tmp_path: Path) -> None:
    """Two servers; one after the other is stopped and started under load, and no request is sent twice."""
    results: list[int | str] = []
    ready: set[int] = set()
    stop, calm = threading.Event(), threading.Event()  # calm while a server only starts, which takes the processor
    with services(tmp_path) as begin:
        running = [begin(floats, drain_seconds=1.0) for _ in range(2)]
        for service in running:
            service.wait()

        def watch() -> None:
            with httpx.Client(timeout=1, verify=False) as client:
                while not stop.is_set():
                    for at, service in enumerate(list(running)):
                        with contextlib.suppress(httpx.TransportError):
                            answer = client.get(f"{service.http.base_url}/readyz")
                            (ready.add if answer.status_code == 200 else ready.discard)(at)
                    time.sleep(0.02)

        def ask() -> None:
            clients = {}
            while not stop.is_set():
                at = min(ready) if ready else -1
                if at < 0:
                    time.sleep(0.01)
                    continue
                url = str(running[at].http.base_url)
                client = clients.setdefault(url, httpx.Client(base_url=url, timeout=5, verify=False))
                try:
                    results.append(client.post("/predict", json=BODY).status_code)
                except httpx.TransportError as err:
                    results.append(repr(err))
                time.sleep(
                    0.02 if calm.is_set() else 0.002
                )  # else the clients keep the interpreter from the one that watches

        threads = [threading.Thread(target=watch), *(threading.Thread(target=ask) for _ in range(4))]
        for thread in threads:
            thread.start()
        for at in (0, 1, 0):
            calm.clear()
            time.sleep(0.7)
            running[at].process.send_signal(signal.SIGTERM)
            assert running[at].process.wait(timeout=20) == 0
            ready.discard(at)
            calm.set()
            fresh = begin(floats, drain_seconds=1.0)
            fresh.wait()
            running[at] = fresh
        time.sleep(0.3)
        stop.set()
        for thread in threads:
            thread.join()
    assert len(results) > 200
    assert [one for one in results if one != 200] == []
