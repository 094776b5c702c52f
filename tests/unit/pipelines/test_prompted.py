"""Recipe `prompted`: what a chat model is asked and what becomes of its answers, by a server that stands here."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.engines import load_engine
from contracts.engines.prompted import FILE, KEY
from contracts.errors import PlatformError
from pipelines.evaluation.scoring import provisional
from tests.chain import Chain


class Model(BaseHTTPRequestHandler):
    """Answers the first words of what it is asked, or what `said` has; keeps what it was asked."""

    asked: list[dict[str, Any]]
    keys: list[str | None]
    said: Any

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        kind: Any = type(self)
        kind.asked.append(body)
        kind.keys.append(self.headers["authorization"])
        text = " ".join(body["messages"][-1]["content"].split()[-6:])
        said = kind.said or {"choices": [{"message": {"content": f" {text} "}, "finish_reason": "stop"}]}
        status = 429 if said == "busy" else 200
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def model() -> Iterator[Any]:
    kind: Any = type("Asked", (Model,), {"asked": [], "keys": [], "said": None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kind.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield kind
    server.shutdown()
    server.server_close()


def chain(home: Path, **given: Any) -> Chain:
    made = Chain(task="summaries", recipe="prompted", home=home, overrides=given)
    made.dataset()
    return made


def test_a_chat_model_answers_by_a_prompt_that_is_kept(model: Any, tmp_path: Path, monkeypatch: Any) -> None:
    document = {
        "version": "1f0c2a94b7d3",  # as `fairlead prompts show NAME --json` prints it; named anew by the content
        "name": "short",
        "template": "Say in short: {document}",
        "variables": ["document"],
        "system": "You are brief.",
        "options": {"temperature": 0, "max_tokens": 40},
        "model": "tiny",
        "examples": [{"variables": {"document": "a"}, "answer": "a"}],
        "metrics": ["rouge_l"],
        "minimum": 0.1,
    }
    file = tmp_path / "prompt.json"
    file.write_text(json.dumps(document))
    monkeypatch.setenv(KEY, "k1")
    made = chain(tmp_path / "home", **{"model.url": model.url, "model.prompt": str(file)})
    made.candidate()
    first = model.asked[0]
    assert (first["model"], first["max_tokens"], first["messages"][0]) == (
        "tiny", 40, {"role": "system", "content": "You are brief."},
    )  # fmt: skip
    assert first["messages"][1]["content"].startswith("Say in short: ")
    assert set(model.keys) == {"Bearer k1"}
    parameters = json.loads((made.path("candidate") / "candidate.json").read_text())["parameters"]
    assert parameters["prompt"] == "short"
    assert parameters["prompt_version"] not in ("", "1f0c2a94b7d3")
    assert "k1" not in (made.path("candidate") / "model" / FILE).read_text()
    assert made.evaluation()["metrics"]["rouge_l"] > 0.05


def test_what_is_said_is_taken_cut_or_refused(model: Any, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    spec = {"url": model.url, "model": "m", "template": "{text}", "max_characters": 30}
    (tmp_path / "model" / FILE).write_text(json.dumps(spec))
    output = {"problem": "generation", "max_characters": 14, "says_cut": True}
    fields = {
        "name": "t", "task": "t", "recipe": "prompted", "modality": "text", "engine": "prompted", "decision": None,
        "signature": {"inputs": [{"name": "document", "dtype": "string", "default": ""}], "output": output},
        "lineage": {"code_version": "", "data_version": "", "source": "", "seed": 1},
    }  # fmt: skip
    engine = load_engine(provisional(tmp_path, fields))

    def predict(*texts: str) -> Any:
        return engine.predict({"document": np.array(texts, dtype=object)}).tolist()

    said = predict("", "one {brace} 😀", "half \ud83d", "a long one " * 5)
    assert len(model.asked) == 3
    assert said[:3] == ["", "one {brace} 😀", "half ?"]
    assert [text.truncated for text in said] == [False, False, False, True]
    assert said[3].unfinished
    model.said = {"choices": [{"message": {"content": None}, "finish_reason": "length"}]}
    assert (predict("x"), predict("x")[0].unfinished) == ([""], True)
    for wrong, why in (("busy", "status 429"), ({"choices": []}, "not in the form"), ([], "not in the form")):
        model.said = wrong or {"no": "choices"}
        with pytest.raises(PlatformError, match=why):
            predict("x")


def test_a_model_that_is_not_named_or_not_there_is_refused(tmp_path: Path) -> None:
    made = chain(tmp_path / "a")
    with pytest.raises(PlatformError, match=r"no model\.url"):
        made.candidate()
    made = chain(tmp_path / "b", **{"model.url": "http://127.0.0.1:9/v1", "model.model": "m"})
    with pytest.raises(PlatformError, match="gives no answer"):
        made.candidate()
    made = chain(tmp_path / "c", **{"model.url": "ftp://x/v1", "model.model": "m"})
    with pytest.raises(PlatformError, match="is no address"):
        made.candidate()
