"""Serving a text bundle: the same numbers as training, whatever the text."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.bundle import Bundle, BundleDocument
from contracts.engines import load_engine
from contracts.engines.onnx_text import OnnxTextEngine
from contracts.errors import PlatformError
from contracts.text_engine import OCCLUSIONS, TextSpec
from contracts.texts import join_fields

CLASSES = ["money", "sport"]
TEXTS = [
    "The striker scored twice and the match was won",
    "Bond yields fell and the bank cut its rate",
    "球队在决赛中获胜，球迷欢呼",
    "银行下调利率，股价上涨",
    "The match was lost after a red card for the striker",
    "Shares of the bank fell, investors sold their bonds",
    "教练称赞球队，比赛很精彩",
    "公司利润增长，股东获得分红",
]
LABELS = np.array([1, 0, 1, 0, 1, 0, 1, 0])


def bundle_at(folder: Path) -> Bundle:
    document = BundleDocument.model_validate(
        {
            "name": "mini",
            "task": "mini",
            "recipe": "linear",
            "modality": "text",
            "engine": "onnx",
            "signature": {
                "inputs": [{"name": "title", "dtype": "string"}, {"name": "content", "dtype": "string"}],
                "classes": CLASSES,
            },
            "gate": {"passed": True, "checks": []},
            "lineage": {"code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": "now"},
            "files": {},
        }
    )
    return Bundle(folder, document, "digest")


def columns(contents: list[Any], titles: list[Any] | None = None) -> dict[str, Any]:
    return {
        "title": np.array(titles or [""] * len(contents), dtype=object),
        "content": np.array(contents, dtype=object),
    }


def write_spec(folder: Path, **changes: Any) -> None:
    values = {
        "max_characters": 5000,
        "max_tokens": 300,
        "pad_id": 0,
        "numbers_per_row": 100,
        "numbers_per_token": 100,
        "separator": " ",
        "explain": "occlusion",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.json").write_text(TextSpec(**{**values, **changes}).model_dump_json(), encoding="utf-8")


def tokenizer_of(texts: list[str], *, boundaries: bool) -> Any:
    from pipelines.training.tokens import train_tokenizer

    return train_tokenizer(texts, unit="word", vocabulary=500, min_frequency=1, boundaries=boundaries)


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> tuple[OnnxTextEngine, Callable[[list[str]], Any], Any]:
    """An engine, the probabilities as the training side computes them, and the training side's model."""
    from pipelines.training import linear_text
    from pipelines.training.ngrams import NgramVocabulary
    from pipelines.training.onnx_text import write_linear_graph
    from pipelines.training.tokens import tokenise

    folder = tmp_path_factory.mktemp("linear")
    write_spec(folder / "model", explain="terms")
    tokenizer = tokenizer_of(TEXTS, boundaries=True)
    ids = tokenise(tokenizer, TEXTS, 300)
    vocabulary = NgramVocabulary.learn(ids, longest=2, min_documents=1, max_terms=1000, unused=(0, 1))
    counts = vocabulary.count(ids)
    model = linear_text.fit(counts, LABELS, 2, linear_text.Chosen(1.0, 0.5), linear_text.LinearConfig())
    tokenizer.save(str(folder / "model" / "tokenizer.json"))
    np.save(folder / "model" / "terms.npy", vocabulary.terms)
    write_linear_graph(
        folder / "model" / "model.onnx",
        terms=vocabulary.terms,
        idf=model.idf,
        weights=model.weights,
        bias=model.bias,
    )

    def expected(texts: list[str]) -> Any:
        scores = np.exp(model.scores(vocabulary.count(tokenise(tokenizer, texts, 300))))
        return scores / scores.sum(axis=1, keepdims=True)

    return OnnxTextEngine(bundle_at(folder), 1), expected, model


@pytest.fixture(scope="module")
def lstm(tmp_path_factory: pytest.TempPathFactory) -> tuple[OnnxTextEngine, Callable[[list[str]], Any]]:
    torch = pytest.importorskip("torch", reason="the recipe trains with torch")
    from pipelines.training.batches import pad
    from pipelines.training.lstm_text import LstmConfig, build_model
    from pipelines.training.onnx_text import write_lstm_graph
    from pipelines.training.tokens import tokenise

    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("lstm")
    write_spec(folder / "model")
    tokenizer = tokenizer_of(TEXTS, boundaries=False)
    tokenizer.save(str(folder / "model" / "tokenizer.json"))
    model = build_model(tokenizer.get_vocab_size(), 2, LstmConfig(embedding=12, hidden=7)).eval()
    for weights in model.parameters():  # far from zero, so that a gate in the wrong place shows
        torch.nn.init.normal_(weights, std=0.7)
    write_lstm_graph(folder / "model" / "model.onnx", {k: v.detach().numpy() for k, v in model.state_dict().items()})

    def expected(texts: list[str]) -> Any:
        ids, lengths = pad([np.array(row) for row in tokenise(tokenizer, texts, 300)], 0)
        with torch.no_grad():
            return model(torch.from_numpy(ids), torch.from_numpy(lengths)).softmax(dim=1).double().numpy()

    return OnnxTextEngine(bundle_at(folder), 1), expected


def test_linear_engine_gives_the_probabilities_of_the_training_side(linear: Any) -> None:
    engine, expected, _ = linear
    texts = [*TEXTS, "bank bank bank bank match", "an unseen zebra", "队"]
    np.testing.assert_allclose(engine.predict(columns(texts)), expected(texts), atol=1e-5)


def test_lstm_engine_gives_the_probabilities_of_torch(lstm: Any) -> None:
    engine, expected = lstm
    texts = [*TEXTS, "match", "", "zebra zebra"]
    np.testing.assert_allclose(engine.predict(columns(texts)), expected(texts), atol=1e-5)


@pytest.fixture(params=["linear", "lstm"])
def engine(request: pytest.FixtureRequest) -> OnnxTextEngine:
    return request.getfixturevalue(request.param)[0]


def test_a_row_does_not_depend_on_its_neighbours(engine: OnnxTextEngine) -> None:
    texts = [*TEXTS, "match", " ".join(TEXTS[:4] * 5)]
    together = engine.predict(columns(texts))
    alone = np.concatenate([engine.predict(columns([text])) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_many_rows_are_run_in_pieces_and_keep_their_order(
    engine: OnnxTextEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = engine.predict(columns(TEXTS))
    monkeypatch.setattr(engine, "working_numbers", 4000)
    np.testing.assert_allclose(engine.predict(columns(TEXTS)), whole, atol=1e-6)


@pytest.mark.parametrize("value", ["", None, float("nan"), "   ", "\ud800", "\x00", "🦓" * 50])
def test_any_value_gets_probabilities(engine: OnnxTextEngine, value: Any) -> None:
    found = engine.predict(columns([value, TEXTS[0]], [value, ""]))
    assert found.shape == (2, 2)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-12)


def test_no_rows_give_no_probabilities(engine: OnnxTextEngine) -> None:
    assert engine.predict(columns([])).shape == (0, 2)


@pytest.mark.parametrize("piece", ["match bank ", "球", "x"])
def test_a_text_of_a_megabyte_is_answered_quickly(engine: OnnxTextEngine, piece: str) -> None:
    text = piece * (1_000_000 // len(piece.encode()))
    started = time.process_time()
    found = engine.predict(columns([text]))
    engine.explain(columns([text]), 3)
    assert time.process_time() - started < 2.0
    np.testing.assert_allclose(found, engine.predict(columns([text[:5000]])), atol=1e-9)


def test_fields_are_joined_in_order_and_empty_ones_skipped() -> None:
    assert join_fields(["a", "", None, float("nan"), "b"], 100) == "a\nb"
    assert join_fields(["abc", "def"], 5) == "abc\nd"
    assert join_fields([None], 5) == ""


def test_title_and_content_count_alike(linear: Any) -> None:
    engine = linear[0]
    np.testing.assert_array_equal(engine.predict(columns([TEXTS[0]], [""])), engine.predict(columns([""], [TEXTS[0]])))


def test_linear_contributions_add_up_to_the_scores(linear: Any) -> None:
    engine, _, model = linear
    for text in TEXTS[:4]:
        probability = engine.predict(columns([text]))[0]
        best = int(probability.argmax())
        total = sum(reason.contribution for reason in engine.explain(columns([text]), 10_000)[0])
        centre = np.log(probability[best]) - np.log(probability).mean()
        assert total + model.bias[best] == pytest.approx(centre, abs=1e-4)


def test_linear_reasons_are_terms_of_the_text_largest_first(linear: Any) -> None:
    english, chinese = linear[0].explain(columns([TEXTS[0], TEXTS[3]]), 5)
    sizes = [abs(reason.contribution) for reason in english]
    assert len(sizes) == 5
    assert sizes == sorted(sizes, reverse=True)
    assert "striker" in " ".join(reason.feature for reason in linear[0].explain(columns([TEXTS[0]]), 50)[0])
    assert any(reason.feature in TEXTS[3] for reason in chinese)


def test_leaving_a_reason_out_changes_the_odds_by_its_contribution(lstm: Any) -> None:
    engine = lstm[0]
    text = "The striker scored twice"
    reasons = {reason.feature: reason.contribution for reason in engine.explain(columns([text]), 10)[0]}
    assert set(reasons) == set(text.split())
    with_it, without = engine.predict(columns([text, "The scored twice"]))
    best = int(with_it.argmax())
    odds = [np.log(p[best] / (1 - p[best])) for p in (with_it, without)]
    assert reasons["striker"] == pytest.approx(odds[0] - odds[1], abs=1e-4)


def test_explaining_a_long_text_scores_a_bounded_number_of_variants(lstm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = lstm[0]
    scored: list[int] = []
    score = engine._score
    monkeypatch.setattr(engine, "_score", lambda rows: scored.append(len(rows)) or score(rows))
    reasons = engine.explain(columns([" ".join(["match bank"] * 140)]), 1000)[0]
    assert scored == [len(reasons) + 1]
    assert len(reasons) <= OCCLUSIONS


def test_nothing_is_said_about_an_empty_text(lstm: Any) -> None:
    assert lstm[0].explain(columns([""]), 5) == [[]]


def test_a_bundle_without_its_text_document_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="text model refused") as caught:
        load_engine(bundle_at(tmp_path))
    assert caught.value.code == "bad_bundle"


def test_serving_loads_neither_torch_nor_sklearn() -> None:
    code = "import sys, contracts.text_engine; "
    code += "print([name for name in ('torch', 'transformers', 'sklearn', 'onnx', 'pandas') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
