"""The image service, and the text service with torch, as real processes, asked by clients that others wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.bundle import Bundle
from contracts.engines import load_engine
from contracts.ports import free_port
from tests.bench.serving_models import publish
from tests.image_bundle import SIGNATURE, image_source, picture
from tests.integration.test_services import Service, services

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, int]]:
    """The image service, with gRPC."""
    folder, grpc_port = tmp_path_factory.mktemp("images"), free_port()
    image_source(folder / "source")
    golden = [json.loads(line) for line in (folder / "source" / "golden.jsonl").read_text().splitlines()]
    bundle = publish(
        folder / "source", golden, folder, name="shades", modality="image", engine="onnx", signature=SIGNATURE
    )
    with services(folder) as begin:
        service = begin(bundle, grpc_port=grpc_port)
        service.wait()
        yield service, grpc_port


def test_files_of_a_form_are_answered_in_their_order(images: tuple[Service, int]) -> None:
    shades = [0, 255, 51] * 20
    files = [("file", (f"{at}.png", picture(shade))) for at, shade in enumerate(shades)]
    answer = images[0].http.post("/predict", files=files)
    assert answer.status_code == 200, answer.text
    got = [one["probabilities"]["bright"] for one in answer.json()["predictions"]]
    assert got == pytest.approx([shade / 255 for shade in shades], abs=1e-6)


TRITON = """
import sys, numpy as np
http_port, grpc_port = sys.argv[1:3]
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
files = np.array([open(name, "rb").read() for name in sys.argv[3:]], object)
for module, port in ((over_http, http_port), (over_grpc, grpc_port)):
    client = module.InferenceServerClient(f"127.0.0.1:{port}")
    assert client.is_model_ready("shades")
    tensor = module.InferInput("image", [len(files)], "BYTES")
    tensor.set_data_from_numpy(files)
    result = client.infer("shades", [tensor])
    print(*result.as_numpy("probabilities")[:, 1].tolist(), *(one.decode() for one in result.as_numpy("label")))
    bad = module.InferInput("image", [1], "BYTES")
    bad.set_data_from_numpy(np.array([b"no image"], object))
    try:
        client.infer("shades", [bad])
    except Exception as err:
        assert "inputs.image[0]: is no image" in str(err), err
    else:
        raise AssertionError("accepted")
"""


def test_the_triton_client_sends_files_as_they_are(images: tuple[Service, int], tmp_path: Path) -> None:
    pytest.importorskip("tritonclient")
    names = []
    for shade, kind in ((51, "PNG"), (255, "JPEG")):
        names.append(str(tmp_path / f"{shade}"))
        Path(names[-1]).write_bytes(picture(shade, kind=kind))
    argv = [sys.executable, "-W", "ignore", "-c", TRITON, str(images[0].http.base_url.port), str(images[1]), *names]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    lines = [line.split() for line in ran.stdout.splitlines()]
    assert len(lines) == 2
    for dark, bright, *found in lines:
        assert [float(dark), float(bright)] == pytest.approx([0.2, 1.0], abs=0.01)
        assert found == ["dark", "bright"]


def test_schemathesis_finds_no_server_error_of_the_image_service(images: tuple[Service, int], tmp_path: Path) -> None:
    if find_spec("schemathesis") is None:
        pytest.skip("Schemathesis is not installed")
    url = str(images[0].http.base_url)
    program = str(Path(sys.executable).with_name("schemathesis"))
    argv = [program, "run", f"{url}/openapi.json", "--url", url, "--checks", "not_a_server_error"]
    argv += ["--max-examples", "20", "--seed", "1", "--phases", "examples,coverage,fuzzing", "--no-color"]
    argv += ["--include-path", "/predict"]
    environment = {**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path)}
    ran = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-1000:]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A text bundle of engine torch."""
    pytest.importorskip("transformers", reason="engine torch is run by it")
    import torch

    from pipelines.training.pretrained import new_classifier
    from pipelines.training.tokens import train_tokenizer
    from pipelines.training.transformer import Network, export_transformer

    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(1)
    tokenizer = train_tokenizer(
        ["the match was won", "the bank cut rates"], unit="word", vocabulary=50, min_frequency=1, boundaries=True
    )
    sizes: dict[str, Any] = {
        "vocabulary": 60,
        "layers": 2,
        "width": 32,
        "heads": 4,
        "inner": 64,
        "max_tokens": 64,
        "dropout": 0.0,
    }
    network = Network(new_classifier(classes=2, **sizes))
    export_transformer(network, folder / "source" / "model", engine="torch", gpu_precision="bf16")
    tokenizer.save(str(folder / "source" / "model" / "tokenizer.json"))
    signature = {"inputs": [{"name": "text", "dtype": "string"}], "classes": ["money", "sport"]}
    fields = {"name": "talk", "modality": "text", "engine": "torch", "signature": signature}
    first = publish(folder / "source", [{"inputs": {"text": "x"}, "probabilities": [1, 0]}], folder / "first", **fields)
    texts = ["the match was won", "", "the bank"]
    answers = load_engine(first).predict({"text": np.array(texts, object)})
    golden = [{"inputs": {"text": t}, "probabilities": p.tolist()} for t, p in zip(texts, answers, strict=True)]
    return publish(folder / "source", golden, folder / "bundles", **fields)


def test_a_bundle_of_weights_is_served_and_explained(weights: Bundle, tmp_path: Path) -> None:
    with services(tmp_path) as begin:
        service = begin(weights, device="cpu")
        service.wait()
        for example in weights.golden():
            body: dict[str, Any] = {"instances": [example.inputs], "explain": 2}
            answer = service.http.post("/predict", json=body).json()["predictions"][0]
            assert list(answer["probabilities"].values()) == pytest.approx(example.expected, abs=1e-5)
            assert len(answer["reasons"]) == min(2, len(str(example.inputs["text"]).split()))


def test_a_device_that_is_not_there_leaves_it_not_ready_with_the_reason(weights: Bundle, tmp_path: Path) -> None:
    with services(tmp_path) as begin:
        service = begin(weights, device="cuda:99")
        problem = service.wait(status=503).json()
        assert "cannot serve on device 'cuda:99'" in problem["title"]
