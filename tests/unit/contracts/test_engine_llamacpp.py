"""llama.cpp as an engine: rows, golden examples, and weights that it cannot take."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.bundle import Bundle
from contracts.engines import load_engine
from contracts.engines.llamacpp import whole
from contracts.errors import PlatformError
from tests.problem_bundles import tiny_chat
from tests.tiny_llama import write_tiny_llama


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_chat(tmp_path_factory.mktemp("tiny"))


def test_rows_are_answered_each_by_itself(bundle: Bundle) -> None:
    engine: Any = load_engine(bundle, slots=2, window=128)
    try:
        assert engine.predict({"text": np.array(["w", "0", "z"], dtype=object)}).tolist() == ["xyz", "😀", ""]
        assert engine.predict({"text": np.array(["A"], dtype=object)}).tolist() == ["BCDEFGHIJKLMNOPQRSTUVWXYZABCDE"]
        with pytest.raises(PlatformError, match="exceeds the available context size") as caught:
            engine.predict({"text": np.array(["w" * 300], dtype=object)})
        assert caught.value.code == "llama_refused"
        engine.process.stop()
        with pytest.raises(PlatformError) as caught:
            engine.predict({"text": np.array(["w"], dtype=object)})
        assert caught.value.code == "llama_ended"
    finally:
        engine.process.stop()


def test_half_a_character_at_the_limit_is_left_out(tmp_path: Path, bundle: Bundle) -> None:
    shutil.copytree(bundle.path, tmp_path / "b")
    file = tmp_path / "b" / "model" / "chat.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_tokens": 2}), encoding="utf-8")
    engine: Any = load_engine(Bundle(tmp_path / "b", bundle.document, ""))
    try:
        raw = engine.process.call("POST", "/completion", {"prompt": "0", "n_predict": 2, "temperature": 0})
        assert engine.predict({"text": np.array(["0", "w"], dtype=object)}).tolist() == ["", "xy"]
    finally:
        engine.process.stop()
    assert (whole(raw["content"], raw["stop_type"] == "limit"), whole("a\ufffd", False)) == ("", "a\ufffd")


def test_the_golden_examples_are_what_it_says(bundle: Bundle) -> None:
    assert [one.expected for one in bundle.golden()][1] == "ghijklmnopqrstuvwxyz"


@pytest.mark.parametrize("broken", ["text", "cut", "other architecture", "missing"])
def test_weights_that_are_none_are_refused_by_name(bundle: Bundle, tmp_path: Path, broken: str) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "chat.json").write_bytes((bundle.model_path / "chat.json").read_bytes())
    if broken == "text":
        (model / "model.gguf").write_text("not weights")
    elif broken != "missing":
        other = {"architecture": "unheard"} if broken == "other architecture" else {}
        write_tiny_llama(model / "model.gguf", **other)
    if broken == "cut":
        with (model / "model.gguf").open("r+b") as stream:
            stream.truncate(300_000)
    with pytest.raises(PlatformError, match=r"weights refused: .*model\.gguf") as caught:
        load_engine(Bundle(tmp_path, bundle.document, ""))
    assert caught.value.code == "bad_weights"
    words = {"text": "begins with", "cut": "", "other architecture": "unheard", "missing": "No such file"}
    assert words[broken] in caught.value.detail


def test_the_likelihood_of_a_text_is_that_of_its_tokens(bundle: Bundle) -> None:
    engine: Any = load_engine(bundle)
    assert engine.bits_per_byte(["wxyz", "ABC"]) == pytest.approx(
        0, abs=1e-3
    )  # each letter is followed by the next one
    surprised = engine.bits_per_byte(["wxza"])
    assert surprised > 10  # of three letters the last two are none that follow
    assert engine.process.log_likelihood("wxyz")[1] == 3  # nothing is before the first one
    assert engine.process.log_likelihood("A" * 600, most=9)[1] == 8
    assert math.isnan(engine.bits_per_byte(["", "a"]))
    assert engine.process.log_likelihood("0😀") == (pytest.approx(0, abs=1e-3), 4)  # its bytes are tokens
    assert engine.bits_per_byte(["a😀"]) > 5  # the end follows an a
    assert engine.process.log_likelihood("ab0😀", most=5)[1] == 2  # to the end of a character
