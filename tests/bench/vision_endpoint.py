"""The endpoint of images for ``make bench-vision ARGS=endpoint``: what an answer costs beside its network alone.

A residual network of random weights takes photos of 224x224 pixels. Processor seconds of the server are compared, and
not the clock, so that what else runs on the machine changes little.
"""

from __future__ import annotations

import http.client
import io
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import Any

import numpy as np

from contracts.bundle import Bundle
from contracts.engines import load_engine
from contracts.images import SPEC, ImageSpec, read_pixels
from contracts.ports import free_port
from tests.bench.report import Row
from tests.bench.serving_models import publish
from tests.image_bundle import encoded
from tests.servers import running, wait_for

SIDE, CLASSES, REQUESTS = 224, [f"class {at}" for at in range(10)], 96
CONNECTIONS, ROUNDS = 8, 6
CASE = "JPEG of 224x224, a network of about 20 ms"


def endpoint(folder: Path) -> Iterator[Row]:
    """Processor time of an answer over HTTP, of the bare session, and of what makes pixels of a file."""
    file = photo()
    bundle = published(folder, file)
    engine: Any = load_engine(bundle, threads=1, device="cpu")
    pixels = engine.decode({"image": np.array([file], dtype=object)}, 10**9)
    alone = partial(spent, partial(engine.predict, pixels))
    prepared = spent(partial(engine.decode, {"image": np.array([file], dtype=object)}, 10**9))
    answered, bare, by_clock = over_http(bundle, file, folder, alone)
    yield Row(case=CASE, contestant="the session alone", value=1000 * bare, unit="processor ms")
    yield Row(case=CASE, contestant="decoding", value=1000 * prepared, unit="processor ms")
    yield Row(case=CASE, contestant="an answer over HTTP", value=1000 * answered, unit="processor ms")
    share, whole = 100 * prepared / answered, (prepared + bare) / answered
    yield Row(case=CASE, contestant="decoding, of an answer", value=share, unit="%", goal="<= 20")
    yield Row(case=CASE, contestant="requests, by the session's", value=bare / answered, unit="x", goal=">= 0.9")
    yield Row(case=CASE, contestant="requests/s by the clock, by the session's", value=by_clock, unit="x")
    yield Row(case=CASE, contestant="requests, by those of decoding and session", value=whole, unit="x")


def photo() -> bytes:
    """A JPEG with as much in it as a photo of its size: waves and noise."""
    from PIL import Image

    rng, places = np.random.default_rng(0), np.mgrid[:SIDE, :SIDE] / SIDE
    waves = sum(np.sin(places[0] * a + places[1] * b) for a, b in rng.uniform(-40, 40, (12, 2)))
    values = 128 + 20 * np.asarray(waves)[..., None] * rng.uniform(0.5, 1, 3) + rng.normal(0, 8, (SIDE, SIDE, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def published(folder: Path, file: bytes) -> Bundle:
    import onnxruntime as ort
    import torch

    from pipelines.training.image_network import export, residual_network

    torch.manual_seed(0)
    network = residual_network(len(CLASSES), 3, (16, 32, 64, 128), (1, 1, 1))
    source = folder / "source"
    (source / "model").mkdir(parents=True)
    (source / "model" / "model.onnx").write_bytes(export(network, (3, SIDE, SIDE), 1.0))
    spec = ImageSpec(width=SIDE, height=SIDE, mean=(0.5,), std=(0.25,), softmax=True)
    (source / "model" / SPEC).write_text(spec.model_dump_json())
    session = ort.InferenceSession(str(source / "model" / "model.onnx"), providers=["CPUExecutionProvider"])
    pixels = spec.normalised(read_pixels(file, spec, 10**9)[0][None])
    scores = session.run(None, {spec.input: pixels})[0][0].astype(np.float64)
    exact = np.exp(scores - scores.max())
    golden = [{"inputs": {"image": encoded(file)}, "probabilities": (exact / exact.sum()).tolist()}]
    signature = {"inputs": [{"name": "image", "dtype": "bytes"}], "classes": CLASSES}
    return publish(
        source, golden, folder / "bundles", name="photos", modality="image", engine="onnx", signature=signature
    )


def spent(call: Callable[[], Any]) -> float:
    """Processor seconds of a call, the least of three rounds."""
    call()
    rounds = []
    for _ in range(3):
        began = process_time()
        for _ in range(REQUESTS // 6):
            call()
        rounds.append((process_time() - began) / (REQUESTS // 6))
    return min(rounds)


def over_http(bundle: Bundle, file: bytes, folder: Path, alone: Callable[[], float]) -> tuple[float, float, float]:
    """Processor seconds of the server for one request, of several connections that each ask again when answered.

    And those that `alone` tells, which is asked in turn with it, so that a machine that is busy for a while slows both;
    and the best round's requests by the clock, as a share of what the session alone does in the same time.
    """
    port, log = free_port(), folder / "service.log"
    command = [sys.executable, "-m", "services.server.launch", "image", "--port", str(port)]
    named = {"FAIRLEAD_SERVICE_BUNDLE": str(bundle.path), "OMP_NUM_THREADS": "1"}
    each = REQUESTS // CONNECTIONS

    def ask(times: int, statuses: tuple[int, ...] = (200,)) -> int:
        connection, status = http.client.HTTPConnection("127.0.0.1", port, timeout=60), 0
        for _ in range(times):
            connection.request("POST", "/predict", file, {"content-type": "image/jpeg"})
            answer = connection.getresponse()
            said, status = answer.read(), answer.status
            if status not in statuses:
                raise SystemExit(f"the service answers {status}: {said[:500]!r}")
        return status

    with running(command, {**os.environ, **named}, log) as process, ThreadPoolExecutor(CONNECTIONS) as clients:
        wait_for(f"http://127.0.0.1:{port}/v2/health/ready", log)
        while ask(1, (200, 503)) == 503:  # it is loading
            sleep(0.2)
        rounds, others, shares = [], [], []
        for _ in range(ROUNDS):
            began, clock = _used(process), perf_counter()
            list(clients.map(ask, [each] * CONNECTIONS))
            clock = (perf_counter() - clock) / (each * CONNECTIONS)
            rounds.append((_used(process) - began) / (each * CONNECTIONS))
            others.append(alone())
            shares.append(others[-1] / clock)
        return min(rounds), min(others), max(shares)


def _used(process: int) -> float:
    """Processor seconds of a process and what it started, of /proc."""
    total = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            rest = (folder / "stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(folder.name) == process or int(rest[2]) == process:  # it leads its group
            total += (int(rest[11]) + int(rest[12])) / os.sysconf("SC_CLK_TCK")
    return total
