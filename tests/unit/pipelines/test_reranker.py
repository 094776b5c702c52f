"""A cross-encoder in ONNX that orders passages: which comes first, what the index keeps, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.cross_encoder import CrossEncoder, RerankerSpec
from contracts.engines.answers import read_model
from contracts.errors import PlatformError
from pipelines.tasks import get_task, recipe_config
from pipelines.training.answers import take_reranker, train_answers

WORDS = ("[PAD]", "[UNK]", "[SEP]", "weighs", "kilograms", "the", "heater")


def write_reranker(folder: Path, outputs: int = 1, inputs: tuple[str, ...] = ("input_ids", "attention_mask"),
                   worth: str = "kilograms", value: float = 1.0) -> Path:  # fmt: skip
    """A network that adds up what each token is worth: `value` for one word, nothing for the others."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    table = np.zeros((len(WORDS), outputs), np.float32)
    table[WORDS.index(worth), -1] = value
    node, info = helper.make_node, helper.make_tensor_value_info
    graph = helper.make_graph(
        [node("Gather", ["table", "input_ids"], ["each"]), node("ReduceSum", ["each", "axis"], ["logits"], keepdims=0)],
        "adds",
        [info(name, TensorProto.INT64, ["rows", "tokens"]) for name in inputs],
        [info("logits", TensorProto.FLOAT, ["rows", outputs])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1], np.int64), "axis")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    read = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    read.pre_tokenizer = pre_tokenizers.Whitespace()
    read.post_processor = processors.TemplateProcessing(
        single="$A [SEP]", pair="$A [SEP] $B:1 [SEP]:1", special_tokens=[("[SEP]", 2)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(folder / "model.onnx"))
    read.save(str(folder / "tokenizer.json"))
    return folder


def opened(folder: Path, source: Path, most: int = 512) -> CrossEncoder:
    take_reranker(str(source), folder, RerankerSpec(max_tokens=most))
    return CrossEncoder(folder, RerankerSpec(max_tokens=most))


@pytest.mark.parametrize("outputs", [1, 2])
def test_question_and_passage_are_read_together(tmp_path: Path, outputs: int) -> None:
    found = opened(tmp_path / "model", write_reranker(tmp_path / "given", outputs))
    passages = ["It weighs four", "weighs four kilograms", "kilograms kilograms"]
    assert found.scores("How heavy?", passages).tolist() == [0.0, 1.0, 2.0]
    assert found.scores("kilograms?", passages[:1]).tolist() == [1.0], "the question counts too"
    assert found.scores("How heavy?", []).shape == (0,)


def test_of_a_long_pair_the_longer_text_is_cut(tmp_path: Path) -> None:
    found = opened(tmp_path / "model", write_reranker(tmp_path / "given"), most=8)
    assert found.scores("heavy", ["kilograms " * 100]).tolist() == [5.0], "8 tokens less the question and two marks"
    assert found.scores("heavy " * 100, ["kilograms"]).tolist() == [1.0]


def not_there(folder: Path) -> str:
    (folder / "tokenizer.json").unlink()
    return "tokenizer.json is missing"


def damaged(folder: Path) -> str:
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:50])
    return "cannot be opened"


def of_three(folder: Path) -> str:
    write_reranker(folder, outputs=3)
    return "shape (1, 3)"


def of_images(folder: Path) -> str:
    write_reranker(folder, inputs=("input_ids", "pixels"))
    return "has an input pixels"


def endless(folder: Path) -> str:
    write_reranker(folder, worth="[SEP]", value=float("inf"))
    return "not with one or two finite numbers"


@pytest.mark.parametrize("change", [not_there, damaged, of_three, of_images, endless])
def test_what_is_no_reranker_is_refused(tmp_path: Path, change: Any) -> None:
    folder = write_reranker(tmp_path / "given")
    said = change(folder)
    with pytest.raises(PlatformError, match="no usable reranker") as refused:
        take_reranker(str(folder), tmp_path / "model", RerankerSpec())
    assert said in refused.value.detail
    with pytest.raises(PlatformError, match="no reranker is named"):
        take_reranker("", tmp_path / "model", RerankerSpec())


def test_passages_come_in_its_order_and_the_judge_says_whether_they_answer(tmp_path: Path) -> None:
    given = write_reranker(tmp_path / "given", worth="the")
    about = {
        "answer.rerank": "onnx",
        "answer.reranker.source": str(given),
        "sample.documents": 12,
        "sample.languages": ["english"],
    }
    task, config = get_task("answers"), recipe_config(get_task("answers"), "words", about)
    frame = pd.concat([one.to_pandas() for one in task.default_source(config)])
    for name, rows in task.split(frame, config).items():
        (rows if name == "paragraphs" else rows.head(15)).to_parquet(tmp_path / f"{name}.parquet")
    train_answers(tmp_path, config, tmp_path / "model", tmp_path / "cache", lambda *a, **m: None)
    model = read_model(tmp_path / "model")
    assert model.reranker is not None
    texts = [model.store.get(at).text for at in range(len(model.store))]
    asked = " ".join(next(text for text in texts if " the " in text).split()[:12])
    found = model.candidates(model.question(asked), [])
    assert len(found) > 2
    scores = model.reranker.scores(asked, [one.passage.text for one in found])
    assert len(set(scores)) > 1
    wanted = [found[at].passage.id for at in sorted(range(len(found)), key=lambda at: (-scores[at], at))]
    assert [one.id for one in model.answer(asked, k=50).passages][: len(found)] == wanted
    assert wanted != [one.id for one in replace(model, reranker=None).answer(asked, k=50).passages][: len(found)]
    (tmp_path / "model" / "reranker.onnx").unlink()
    with pytest.raises(PlatformError, match="index of documents refused") as refused:
        read_model(tmp_path / "model")
    assert "reranker.onnx is missing" in refused.value.detail
