"""Model servers as real processes, over bundles with a LightGBM and an ONNX model."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from contracts.bundle import Bundle, write_bundle
from contracts.ports import free_port
from services.server.launch import ServeCommand, serve_command

pytestmark = pytest.mark.integration

NAMES = [f"f{index}" for index in range(12)]
LINEAGE = {"code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": "2026-01-01T00:00:00Z"}
DECISION = {"positive": "bad", "threshold": 0.4, "false_positive_cost": 1, "false_negative_cost": 5}


def write_fields(source: Path, golden: list[dict[str, Any]], root: Path, **fields: Any) -> Bundle:
    (source / "golden.jsonl").write_text("".join(json.dumps(line) + "\n" for line in golden))
    common = {"task": "test", "recipe": "base", "gate": {"passed": True, "checks": []}, "lineage": LINEAGE}
    return write_bundle(source, root, common | fields)


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A tabular bundle: LightGBM with enough trees that explaining 1,000 rows takes a while."""
    import lightgbm

    rng = np.random.default_rng(7)
    rows = rng.normal(size=(600, len(NAMES)))
    label = (rows[:, 0] + rows[:, 1] > 0.8).astype(int)
    params = {"objective": "binary", "verbosity": -1, "num_threads": 1, "num_leaves": 31, "min_data_in_leaf": 5}
    booster = lightgbm.train(params, lightgbm.Dataset(rows, label), 300)
    source = tmp_path_factory.mktemp("scores")
    (source / "model").mkdir()
    booster.save_model(source / "model" / "model.txt")
    (source / "model" / "calibration.json").write_text('{"kind": "none"}')
    golden = [
        {"inputs": dict(zip(NAMES, row.tolist(), strict=True)), "probabilities": [1 - float(p), float(p)]}
        for row, p in zip(rows[:20], booster.predict(rows[:20]), strict=True)
    ]
    signature = {"inputs": [{"name": name, "dtype": "float64"} for name in NAMES], "classes": ["good", "bad"]}
    fields = {"name": "scores", "modality": "tabular", "engine": "lightgbm", "decision": DECISION}
    return write_fields(source, golden, source.parent / "bundles", signature=signature, **fields)


@pytest.fixture(scope="module")
def articles(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A text bundle: a tokenizer of three words, and a graph that adds up their ids."""
    from onnx import TensorProto, checker, helper
    from tokenizers import Tokenizer, models, pre_tokenizers

    source = tmp_path_factory.mktemp("articles")
    folder = source / "model"
    folder.mkdir()
    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "goal": 1, "atom": 2, "opera": 3}, unk_token="[PAD]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    weights = helper.make_tensor("w", TensorProto.FLOAT, [1, 3], [0.5, 0.0, -0.5])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("Cast", ["ids"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["floats", "axes"], ["sum"], keepdims=1),
        helper.make_node("MatMul", ["sum", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows", "tokens"])
    out = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", 3])
    graph = helper.make_graph(nodes, "sum", [ids], [out], [weights, axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    spec = {"max_characters": 20_000, "max_tokens": 512, "pad_id": 0, "numbers_per_row": 8, "numbers_per_token": 8}
    (folder / "text.json").write_text(json.dumps({**spec, "explain": "occlusion"}))
    logits = np.array([0.5, 0.0, -0.5]) * 3
    expected = np.exp(logits) / np.exp(logits).sum()
    golden = [{"inputs": {"title": "goal", "content": "atom"}, "probabilities": expected.tolist()}]
    signature = {
        "inputs": [{"name": "title", "dtype": "string"}, {"name": "content", "dtype": "string"}],
        "classes": ["science", "culture", "sports"],
    }
    fields = {"name": "articles", "modality": "text", "engine": "onnx"}
    return write_fields(source, golden, source.parent / "bundles", signature=signature, **fields)


class Service:
    """A service process and a client of it."""

    def __init__(self, command: ServeCommand, port: int, folder: Path) -> None:
        self.log = folder / f"{port}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command.argv, env=command.env, cwd=folder, stderr=log, stdout=log)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def wait(self, path: str = "/readyz", status: int = 200) -> httpx.Response:
        """Wait until `path` answers with `status`; a machine may be busy."""
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(httpx.TransportError):
                answer = self.http.get(path)
                if answer.status_code == status and "loading" not in answer.text:
                    return answer
            time.sleep(0.05)
        raise AssertionError(f"{path} did not answer {status}: {self.log.read_text()}")

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.terminate()
        return self.process.wait(timeout=30)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


Start = Callable[..., Service]


@contextlib.contextmanager
def services(folder: Path) -> Iterator[Start]:
    """Starts services in `folder`, and ends them."""
    with contextlib.ExitStack() as stack:

        def begin(bundle: Bundle, host: str = "127.0.0.1", **settings: Any) -> Service:
            port = free_port()
            modality, path = bundle.document.modality, str(bundle.path)
            command = serve_command(modality, path, port=port, host=host, version="3", settings=settings)
            service = Service(command, port, folder)
            stack.callback(service.http.close)
            stack.callback(service.process.wait)
            stack.callback(service.process.kill)
            return service

        yield begin


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with services(tmp_path) as begin:
        yield begin


@pytest.fixture(scope="module")
def tabular(scores: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with services(tmp_path_factory.mktemp("tabular")) as begin:
        service = begin(scores)
        service.wait()
        yield service


@pytest.fixture(scope="module")
def text(articles: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with services(tmp_path_factory.mktemp("text")) as begin:
        service = begin(articles)
        service.wait()
        yield service


def rows_of(bundle: Bundle) -> list[dict[str, Any]]:
    return [dict(example.inputs) for example in bundle.golden()]


def test_answers_are_those_of_the_bundle(tabular: Service, scores: Bundle) -> None:
    answer = tabular.http.post("/predict", json={"instances": rows_of(scores), "explain": 3})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["model"], body["version"]) == ("scores", "3")
    for example, got in zip(scores.golden(), body["predictions"], strict=True):
        assert list(got["probabilities"].values()) == pytest.approx(example.expected, abs=1e-12)
        assert got["label"] == ("bad" if got["probability"] >= 0.4 else "good")
        assert len(got["reasons"]) == 3
    assert body["predictions"][0]["reasons"][0]["feature"] in NAMES


def test_both_protocols_give_the_same_numbers(tabular: Service, scores: Bundle) -> None:
    rows = rows_of(scores)
    tensors = [
        {"name": name, "shape": [len(rows)], "datatype": "FP64", "data": [row[name] for row in rows]} for name in NAMES
    ]
    outputs = tabular.http.post("/v2/models/scores/infer", json={"inputs": tensors}).json()["outputs"]
    probabilities = np.array(outputs[0]["data"]).reshape(outputs[0]["shape"])
    typed = tabular.http.post("/predict", json={"instances": rows}).json()["predictions"]
    assert probabilities[:, 1].tolist() == [one["probability"] for one in typed]
    assert outputs[1]["data"] == [one["label"] for one in typed]


def test_a_text_model_is_served(text: Service, articles: Bundle) -> None:
    example = next(articles.golden())
    body = text.http.post("/predict", json={"instances": [dict(example.inputs)], "explain": True}).json()
    prediction = body["predictions"][0]
    assert prediction["label"] == "science"
    assert list(prediction["probabilities"].values()) == pytest.approx(example.expected, abs=1e-6)
    assert {reason["feature"] for reason in prediction["reasons"]} == {"goal", "atom"}


@pytest.mark.parametrize("content", ["goal " * 200_000, "x" * 1_000_000, "\u4e16\u754c" * 500_000, "\ud800"])
def test_a_text_of_a_megabyte_is_answered_quickly(text: Service, content: str) -> None:
    body = json.dumps({"instances": [{"title": "", "content": content}]})
    start = time.perf_counter()
    answer = text.http.post("/predict", content=body, headers={"content-type": "application/json"})
    assert time.perf_counter() - start < 5
    assert answer.status_code == (400 if content == "\ud800" else 200)


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b'{"instances": [{"f0": "secret"}]}', 422), (b'{"instances": 1}', 422), (b" " * (9 << 20), 413)],
)
def test_bad_requests_are_problems_and_leave_no_trace_in_the_log(tabular: Service, body: bytes, status: int) -> None:
    before = tabular.log.read_text()
    answer = tabular.http.post("/predict", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert tabular.http.get("/livez").status_code == 200
    assert tabular.log.read_text() == before


def test_metrics_are_those_of_one_process(tabular: Service, scores: Bundle) -> None:
    def count() -> float:
        families = text_string_to_metric_families(tabular.http.get("/metrics").text)
        samples = {family.name: family.samples for family in families}
        assert "process_resident_memory_bytes" in samples
        assert not any(name.startswith("bentoml") for name in samples)
        wanted = {"route": "/predict", "code": "200"}
        return sum(s.value for s in samples["fairlead_requests"] if wanted.items() <= s.labels.items())

    before = count()
    for _ in range(5):
        tabular.http.post("/predict", json={"instances": rows_of(scores)[:1]})
    assert count() == before + 5


def test_the_openapi_example_is_a_request(tabular: Service) -> None:
    document = tabular.http.get("/openapi.json").json()
    example = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]["example"]
    assert tabular.http.post("/predict", json=example).status_code == 200


def test_many_clients_at_once_get_their_own_answers(tabular: Service, scores: Bundle) -> None:
    rows = rows_of(scores)
    expected = [example.expected[1] for example in scores.golden()]

    def ask(index: int) -> float:
        body = {"instances": [rows[index % len(rows)]]}
        return float(tabular.http.post("/predict", json=body).json()["predictions"][0]["probability"])

    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(ask, range(400)))
    assert got == pytest.approx([expected[index % len(rows)] for index in range(400)], abs=1e-12)


def broken(bundle: Bundle, folder: Path, file: str, change: Callable[[bytes], bytes]) -> Bundle:
    copy = folder / "copy"
    shutil.copytree(bundle.path, copy)
    (copy / file).write_bytes(change((copy / file).read_bytes()))
    return Bundle(copy, bundle.document, bundle.digest)


def test_one_changed_byte_is_never_served(start: Start, scores: Bundle, tmp_path: Path) -> None:
    damaged = broken(scores, tmp_path, "model/model.txt", lambda data: data[:1000] + b"9" + data[1001:])
    service = start(damaged)
    problem = service.wait(status=503).json()
    assert problem["type"] == "urn:fairlead:problem:bad-bundle"
    assert "model/model.txt" in problem["detail"]
    assert service.http.get("/livez").status_code == 200
    assert service.http.post("/predict", json={"instances": rows_of(scores)[:1]}).status_code == 503
    assert service.stop() == 0
    assert [event["code"] for event in service.events() if event["event"] == "not_ready"] == ["bad_bundle"]


def test_a_model_that_changed_its_mind_is_never_served(start: Start, scores: Bundle, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(scores.path, source)
    (source / "bundle.json").unlink()
    golden = [example.model_dump() for example in scores.golden()]
    golden[7]["expected"] = [0.5, 0.5]
    fields = scores.document.model_dump(exclude={"files"})
    service = start(write_fields(source, golden, tmp_path / "bundles", **fields))
    problem = service.wait(status=503).json()
    assert problem["type"] == "urn:fairlead:problem:golden-mismatch"
    assert problem["detail"].startswith("example 7 ")


def test_requests_in_flight_are_finished_and_logged_at_sigterm(start: Start, scores: Bundle, tmp_path: Path) -> None:
    settings = {"drain_seconds": 0.5, "predictions.folder": str(tmp_path / "log"), "predictions.sample": 1.0}
    service = start(scores, **settings)
    service.wait()
    rows = rows_of(scores) * 50
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(service.http.post, "/predict", json={"instances": rows, "explain": 3})
        time.sleep(0.1)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        refused = httpx.get(f"{service.http.base_url}/readyz")
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:fairlead:problem:draining")
        assert slow.result().status_code == 200
    assert service.process.wait(timeout=20) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{service.http.base_url}/livez")
    logged = [line for file in (tmp_path / "log" / "scores").iterdir() for line in file.read_text().splitlines()]
    assert {json.loads(line)["id"] for line in logged} == {one["id"] for one in slow.result().json()["predictions"]}


def test_wrong_settings_end_the_process_with_a_reason(tmp_path: Path) -> None:
    command = serve_command("tabular", "/nowhere", port=free_port(), settings={"threds": 2})
    ended = subprocess.run(command.argv, env=command.env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "threds" in json.loads(ended.stderr)["detail"]


def test_a_taken_port_ends_the_process(scores: Bundle, tabular: Service, tmp_path: Path) -> None:
    port = tabular.http.base_url.port
    assert port is not None
    command = serve_command("tabular", str(scores.path), port=port)
    ended = subprocess.run(command.argv, env=command.env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0
    said = json.loads(ended.stderr.strip().splitlines()[-1])
    assert (said["code"], said["headline"]) == ("port_in_use", f"port {port} is in use")


def test_bentoml_serve_runs_the_same_service(articles: Bundle, tmp_path: Path) -> None:
    port = free_port()
    env = serve_command("text", str(articles.path), port=port).env | {"BENTOML_HOME": str(tmp_path / "bentoml")}
    program = str(Path(sys.executable).with_name("bentoml"))
    argv = (
        program,
        "serve",
        "services.service:SERVICE",
        "--arg",
        "modality=text",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    )
    service = Service(ServeCommand(argv=argv, env=env), port, tmp_path)
    try:
        service.wait()
        body = {"instances": [{"title": "goal", "content": "atom"}]}
        assert service.http.post("/predict", json=body).json()["predictions"][0]["label"] == "science"
        assert "fairlead_requests_total" in service.http.get("/metrics").text
        assert not list((tmp_path / "bentoml").rglob("*.db")), "our metrics live in memory"
    finally:
        service.stop()


@pytest.mark.parametrize("modality", ["image", "tabular", "text"])
def test_bentoml_builds_the_service(modality: str, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    env = {**os.environ, "BENTOML_HOME": str(tmp_path), "BENTOML_DO_NOT_TRACK": "true"}
    program = str(Path(sys.executable).with_name("bentoml"))
    chosen = ["--name", f"fairlead-{modality}", "--arg", f"modality={modality}"]
    argv = [program, "build", "-f", "services/bentofile.yaml", *chosen, "-o", "tag", "."]
    built = subprocess.run(argv, env=env, cwd=root, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    assert list(tmp_path.glob(f"bentos/fairlead-{modality}/*/src/services/{modality}/modality.py"))


def test_a_service_of_trees_does_not_load_what_lightgbm_takes_objects_of(scores: Bundle) -> None:
    """pandas and scikit-learn cost 130 MiB where they are installed."""
    code = "import sys; from contracts.bundle import read_bundle; from contracts.engines import load_engine\n"
    code += f"load_engine(read_bundle({str(scores.path)!r}))\n"
    code += "print([name for name in ('pandas', 'sklearn') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
