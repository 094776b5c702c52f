"""`helm test` notices a service that answers differently, or another model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.bundle import Bundle
from contracts.errors import PlatformError
from contracts.metric_names import MODEL_INFO, PREDICTIONS
from contracts.problems.classification import ClassificationOutput
from services.server import golden

Make = Callable[..., Bundle]


class Server:
    """Answers as the bundle says, but for what a test changes."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.digest, self.shift = bundle, bundle.digest[:12], 0.0
        self.keys: list[str] = []

    def ask(self, url: str, key: str, document: Any = None) -> bytes:
        self.keys.append(key)
        if document is None:
            return f'\n{MODEL_INFO}{{digest="{self.digest}"}} 1\n{PREDICTIONS}{{label="x"}} 1\n'.encode()
        by_inputs = {json.dumps(one.inputs, sort_keys=True): one.expected for one in self.bundle.golden()}
        output = self.bundle.document.signature.output
        assert isinstance(output, ClassificationOutput)
        rows = [by_inputs[json.dumps(one, sort_keys=True)] for one in document["instances"]]
        shifted = [{name: value + self.shift for name, value in zip(output.classes, row, strict=True)} for row in rows]
        return json.dumps({"predictions": [{"probabilities": one} for one in shifted]}).encode()


@pytest.fixture
def server(make_bundle: Make, monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server(make_bundle())
    monkeypatch.setattr(golden, "_ask", made.ask)
    return made


def test_every_golden_example_is_asked_for(server: Server) -> None:
    assert golden.check(server.bundle, "http://fraud", "secret") == len(list(server.bundle.golden()))
    assert set(server.keys) == {"secret"}


def test_an_answer_outside_the_tolerance_is_named(server: Server) -> None:
    server.shift = 0.01
    with pytest.raises(PlatformError, match="golden example 0 differently") as err:
        golden.check(server.bundle, "http://fraud")
    assert err.value.code == "golden_mismatch"


def test_metrics_of_another_bundle_are_noticed(server: Server) -> None:
    server.digest = "0" * 12
    with pytest.raises(PlatformError, match="not those of this bundle"):
        golden.check(server.bundle, "http://fraud")


def test_no_answer_is_one_json_line_and_a_status(
    make_bundle: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert golden.main(["--bundle", str(make_bundle().path), "--url", "http://127.0.0.1:9"]) == 1
    assert json.loads(capsys.readouterr().err)["code"] == "no_answer"
