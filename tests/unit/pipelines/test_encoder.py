"""The recipe `encoder`: a frozen encoder's vector beside terms, encoded once, served from one graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper

from contracts.errors import PlatformError
from pipelines.recipes.text.examples import joined_texts
from pipelines.task import dump_config
from pipelines.tasks import get_task, recipe_config
from pipelines.training.encoder import EncoderConfig, encode, read_encoder
from pipelines.training.onnx_encoder import vector_graph
from pipelines.training.tokens import PAD_ID, UNKNOWN_ID, train_tokenizer
from tests.chain import Chain

WIDTH, OPSETS = 24, (13, 17, 18)


def _quiet(done: int, total: int, **metrics: float) -> None:
    pass


def _word_vectors(table: np.ndarray, opset: int = 17) -> onnx.ModelProto:
    """An encoder that gives each token its vector, through a matrix product as a BERT has them."""
    half = np.eye(WIDTH, dtype=np.float32) / 2
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["words"]),
            helper.make_node("MatMul", ["words", "half"], ["last_hidden_state"]),
        ],
        "words",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "s"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["b", "s", WIDTH])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(half, "half")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def _write(folder: Path, **changes: Any) -> np.ndarray:
    """Write an encoder; returns its table."""
    folder.mkdir(parents=True)
    task: Any = get_task("news")
    sample = pd.read_csv(task.sample, dtype=str).fillna("")
    texts = joined_texts(sample, ("title", "content"), 1000)
    tokenizer = train_tokenizer(texts, unit="word", vocabulary=2000, min_frequency=1, boundaries=True)
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=32)
    tokenizer.save(str(folder / "tokenizer.json"))
    table = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), WIDTH)).astype(np.float32)
    (folder / "model.onnx").write_bytes(_word_vectors(table).SerializeToString())
    for name, document in changes.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(document))
    return table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("encoder") / "words"
    _write(made)
    return made


def _mean(table: np.ndarray, row: list[int]) -> np.ndarray:
    vector = table[row].mean(axis=0)
    return vector / np.linalg.norm(vector)


def test_a_vector_is_the_mean_of_the_tokens_of_length_one_whatever_the_padding(tmp_path: Path) -> None:
    table = _write(tmp_path / "e")
    encoder = read_encoder(EncoderConfig(source=str(tmp_path / "e"), int8=False, max_tokens=6), tmp_path / "cache")
    assert (encoder.pad_id, encoder.unknown_id) == (PAD_ID, UNKNOWN_ID)
    rows = [[2, 7, 9, 3], [2, 3], [2, *range(10, 40), 3], [5]]
    found = encode(encoder, rows, 6, 1, _quiet)
    np.testing.assert_allclose(found, [_mean(table, row[:6]) for row in rows], atol=1e-5)
    long = encoder.tokenizer.encode("one two three four five six seven eight nine ten eleven twelve")
    assert len(long.ids) == 14  # neither cut nor filled


def test_the_first_token_where_the_encoder_says_so(tmp_path: Path) -> None:
    table = _write(tmp_path / "e", **{"1_Pooling/config.json": {"pooling_mode_cls_token": True}})
    encoder = read_encoder(EncoderConfig(source=str(tmp_path / "e"), int8=False), tmp_path / "cache")
    found = encode(encoder, [[7, 9, 3], [8]], 6, 1, _quiet)
    np.testing.assert_allclose(found, [_mean(table, [7]), _mean(table, [8])], atol=1e-5)


@pytest.mark.parametrize("opset", OPSETS)
def test_graphs_of_many_operator_sets_are_taken(opset: int) -> None:
    model = vector_graph(_word_vectors(np.ones((9, WIDTH), np.float32), opset), 0, "mean", 4)
    onnx.checker.check_model(model)


def test_a_text_is_encoded_once_by_an_encoder(folder: Path, tmp_path: Path) -> None:
    encoder = read_encoder(EncoderConfig(source=str(folder)), tmp_path)
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int, **metrics: float) -> None:
        seen.append((done, total))

    first = encode(encoder, [[2, 7, 3], [2, 8, 3], [2, 7, 3]], 16, 1, progress)
    again = encode(read_encoder(EncoderConfig(source=str(folder)), tmp_path), [[2, 8, 3], [2, 7, 3]], 16, 1, progress)
    np.testing.assert_array_equal(first[[1, 0]], again)
    assert seen == [(2, 2)]
    encode(read_encoder(EncoderConfig(source=str(folder), int8=False), tmp_path), [[2, 8, 3]], 16, 1, progress)
    assert seen == [(2, 2), (1, 1)]


@pytest.mark.parametrize(
    ("source", "headline", "says"),
    [
        ("nowhere", "no usable weights", "no package of this name"),
        ("json", "no usable weights", "has no model.onnx or model.safetensors"),
        (".", "no usable encoder", "has no model.onnx or model.safetensors"),
    ],
)
def test_what_is_no_encoder_is_refused(
    source: str, headline: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PlatformError, match=headline) as caught:
        read_encoder(EncoderConfig(source=source), tmp_path)
    assert says in str(caught.value.detail)


def test_an_encoder_in_an_installed_package(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_encoder"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('it is never imported')\n")
    for name in ("model.onnx", "tokenizer.json"):
        (package / "model" / name).write_bytes((folder / name).read_bytes())
    monkeypatch.syspath_prepend(str(tmp_path))
    found = read_encoder(EncoderConfig(source="some-encoder"), tmp_path / "cache")
    assert encode(found, [[2, 7, 3]], 16, 1, _quiet).shape == (1, WIDTH)


@pytest.fixture(scope="module")
def chain(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    overrides = {"model.encoder.source": str(folder), "model.strengths": [0.3, 1.0], "model.folds": 3}
    made = Chain(task="news", recipe="encoder", home=tmp_path_factory.mktemp("chain"), overrides=overrides)
    made.dataset()
    made.candidate()
    return made


def test_it_learns_and_is_served_from_its_own_files(chain: Chain) -> None:
    evaluation = chain.evaluation()
    assert evaluation["metrics"]["accuracy"] > 0.6
    candidate = chain.path("candidate")
    assert {file.name for file in (candidate / "model").iterdir()} == {"model.onnx", "text.json", "tokenizer.json"}


def test_the_encoder_s_vector_of_served_texts_is_as_far_from_the_usual_one_as_the_baseline_says(chain: Chain) -> None:
    from contracts.engine import vector_of
    from contracts.engines import load_engine
    from pipelines.evaluation.scoring import provisional
    from services.model.distances import Distances

    candidate = chain.path("candidate")
    bundle = provisional(candidate, json.loads((candidate / "candidate.json").read_text()))
    engine: Any = load_engine(bundle)
    normal = json.loads((candidate / "baseline.json").read_text())["inputs"]
    vector = vector_of(engine)
    assert vector is not None
    [(name, found)] = Distances.of_inputs(vector, normal).items()
    assert name == next(item.name for item in bundle.document.signature.inputs if item.dtype == "string")
    test = pd.read_parquet(chain.path("dataset") / "test.parquet")
    ids = engine.tokenise({one: test[one].to_numpy(object) for one in ("title", "content")})[:200]
    usual, told = [float(found(row)["distance"] or 0) for row in ids], normal[name]["traits"]["distance"]
    assert len(normal[name]["center"]) == WIDTH
    assert told["rows"] == 3 * min(400, len(test)) // 4
    assert np.mean(usual) == pytest.approx(told["mean"], abs=told["deviation"] / 2)
    rng = np.random.default_rng(1)
    foreign = [float(found(rng.integers(4, 300, 12).tolist())["distance"] or 0) for _ in range(50)]
    assert np.mean(foreign) > told["mean"] + told["deviation"]


def test_served_probabilities_are_those_of_its_parts(chain: Chain, folder: Path) -> None:
    from pipelines.steps.train import train

    settings: Any = recipe_config(get_task("news"), "encoder", {**chain.overrides, "model.encoder.int8": False})
    out = chain.home / "fp32"
    train("news", dump_config(settings), str(chain.path("dataset")), str(chain.home / "c" / "1"), str(out))
    from pipelines.recipes.text.examples import Examples
    from pipelines.recipes.text.served import engine_of

    examples = Examples.read(get_task("news"), settings, chain.path("dataset"))
    engine = engine_of(out / "model", examples, settings, "onnx")
    columns = {name: examples.valid[name].to_numpy(object) for name in examples.fields}
    together = engine.predict(columns)
    alone = np.concatenate([engine.predict({k: v[at : at + 1] for k, v in columns.items()}) for at in range(9)])
    np.testing.assert_allclose(together[:9], alone, atol=1e-5)
    right = np.array(examples.classes)[together.argmax(axis=1)] == examples.valid["label"].to_numpy()
    assert right.mean() > 0.9  # it has learned from these rows
    assert engine.explain({k: v[:1] for k, v in columns.items()}, 3)[0]
