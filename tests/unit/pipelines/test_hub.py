"""Weights from a hub: only where the platform allows one, by its exact commit, and never a pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from contracts.endpoints import Endpoints
from contracts.errors import PlatformError
from pipelines.io.weights import HUB_TOKEN, hub_allowed, weights_here
from pipelines.run import Run
from pipelines.steps.calls import contexts, graph
from pipelines.tasks import get_task
from pipelines.values import values_of
from tests.chain import Chain

pytestmark = pytest.mark.skipif(find_spec("transformers") is None, reason="it reads the weights")

OLD, NEW = "1" * 40, "2" * 40
REVISIONS = {"main": NEW, "v1": OLD, NEW: NEW, OLD: OLD}


class Hub:
    """A hub's routes over folders: ``/api/models/ORG/NAME`` and ``/ORG/NAME/resolve/COMMIT/FILE``."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self.folders = folders
        self.asked: list[tuple[str, str]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.asked.append((self.path, self.headers.get("Authorization", "")))
                found = hub.answer(self.path.partition("?")[0])
                self.send_response(200 if found else 404)
                for name, value in (found or ({}, b""))[0].items():
                    self.send_header(name, value)
                body = found[1] if found else b""
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, path: str) -> tuple[dict[str, str], bytes] | None:
        parts = path.strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        name, rest = "/".join(parts[2:4] if api else parts[:2]), parts[4:] if api else parts[2:]
        if name not in self.folders or (rest and rest[1] not in REVISIONS):
            return None
        commit = REVISIONS[rest[1]] if rest else NEW
        folder = self.folders[name]
        files = [file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if file.is_file()]
        if api:
            sizes = {each: (folder / each).stat().st_size for each in files}
            tree = [{"type": "file", "path": each, "size": size, "oid": each} for each, size in sizes.items()]
            about = {"id": name, "sha": commit, "siblings": [{"rfilename": each} for each in files]}
            document = tree if rest[:1] == ["tree"] else about
            return {"Content-Type": "application/json"}, json.dumps(document).encode()
        file = "/".join(rest[2:])
        if rest[0] != "resolve" or file not in files:
            return None
        return {"ETag": f'"{commit[:4]}{file}"', "X-Repo-Commit": commit}, (folder / file).read_bytes()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipelines.training.pretrained import new_classifier
    from pipelines.training.tokens import train_tokenizer

    folder = tmp_path_factory.mktemp("weights")
    texts = ["the match was won in the last minute", "shares fell after the bank cut its forecast"] * 3
    tokenizer = train_tokenizer(texts, unit="word", vocabulary=100, min_frequency=1, boundaries=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    made = new_classifier(
        vocabulary=tokenizer.get_vocab_size(),
        classes=3,
        layers=1,
        width=16,
        heads=2,
        inner=16,
        max_tokens=32,
        dropout=0,
    )
    made.save_pretrained(folder)
    (folder / "modeling.py").write_text("raise RuntimeError('code of a hub was run')\n")
    return folder


@pytest.fixture
def hub(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text("{}")
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    found = Hub({"acme/tiny": weights, "acme/pickled": pickled})
    yield found
    found.server.shutdown()


@pytest.mark.parametrize(("source", "commit"), [("hub:acme/tiny", NEW), ("hub:acme/tiny@v1", OLD)])
def test_the_commit_is_pinned_and_no_code_is_fetched(
    source: str, commit: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.training.pretrained import pretrained_encoder

    monkeypatch.setenv("HF_TOKEN", "of-another-hub")
    with hub_allowed(hub.address), weights_here(source) as found:
        assert found.revision == commit
        names = {file.name for file in found.folder.rglob("*")}
        assert names == {"config.json", "model.safetensors", "tokenizer.json"}
        assert pretrained_encoder(found.folder).config.hidden_size == 16
    assert {path.split("/")[4] for path, _ in hub.asked if "/resolve/" in path} == {commit}
    assert {token for _, token in hub.asked} == {""}


def test_what_was_fetched_is_not_fetched_again(hub: Hub) -> None:
    for _ in range(2):
        with hub_allowed(hub.address), weights_here(f"hub:acme/tiny@{OLD}"):
            pass
    fetched = [path for path, _ in hub.asked if path.endswith("/model.safetensors")]
    assert len(fetched) <= 2, "once its header, once its content"


def test_a_token_is_given_to_the_hub_that_is_allowed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HUB_TOKEN, "ours")
    with hub_allowed(hub.address), weights_here("hub:acme/tiny"):
        assert {token for _, token in hub.asked} == {"Bearer ours"}


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("hub:acme/pickled", "it has no model.safetensors, and nothing else is read; it has pytorch_model.bin"),
        ("hub:acme/tiny@v9", "404"),
        ("hub:acme/nothing", "404"),
        ("hub:../../etc", "named hub:ORG/NAME"),
        ("package:no_such_package", "no package of this name is installed"),
    ],
)
def test_what_cannot_be_read_is_refused(source: str, says: str, hub: Hub) -> None:
    with (
        pytest.raises(PlatformError, match="no usable weights") as caught,
        hub_allowed(hub.address),
        weights_here(source),
    ):
        pass
    assert says in str(caught.value.detail)
    assert not any("/resolve/" in path for path, _ in hub.asked)


def test_without_a_hub_of_the_platform_none_is_asked(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    with pytest.raises(PlatformError, match="allows no hub") as caught, weights_here("hub:acme/tiny"):
        pass
    assert (caught.value.code, hub.asked) == ("hub_off", [])
    assert "hub: https://" in str(caught.value.fix)


def test_a_hub_that_does_not_answer_is_named() -> None:
    with (
        pytest.raises(PlatformError, match="no usable weights") as caught,
        hub_allowed("http://127.0.0.1:1"),
        weights_here("hub:acme/tiny"),
    ):
        pass
    assert "http://127.0.0.1:1" in str(caught.value.detail)


def test_the_training_step_is_told_the_hub_of_the_profile(tmp_path: Path) -> None:
    where = Endpoints(home=str(tmp_path), hub="https://hub.example")
    assert where.resolved().hub == where.hub
    config = Chain(task="news", home=tmp_path).config
    run = Run(run_id="news-1", task="news", workflow="full", config=json.loads(config), endpoints=where)
    told = contexts(graph("full", get_task("news")), values_of(run))
    assert {step for step, text in told.items() if json.loads(text).get("hub") == where.hub} == {"train"}


@pytest.mark.parametrize(
    ("recipe", "name", "key"),
    [
        ("transformer", "model.pretrained", "pretrained_revision"),
        ("transformer_lstm", "model.pretrained", "pretrained_revision"),
        ("encoder", "model.encoder.source", "encoder_revision"),
    ],
)
def test_each_recipe_goes_on_from_a_hub(recipe: str, name: str, key: str, hub: Hub, tmp_path: Path) -> None:
    short: dict[str, Any] = {"text.max_tokens": 16, "training.epochs": 1, "model.int8": False}
    changes = {name: "hub:acme/tiny@v1", **(short if recipe != "encoder" else {"model.encoder.max_tokens": 16})}
    chain = Chain(task="news", recipe=recipe, home=tmp_path, overrides=changes)
    chain.dataset()
    chain.call("train", chain.path("dataset"), chain.path("checkpoints"), chain.path("model"), "", hub.address)
    trained = json.loads((chain.path("model") / "train.json").read_text())
    assert trained["parameters"][key] == OLD
    assert (chain.path("model") / "model" / "model.onnx").is_file()
