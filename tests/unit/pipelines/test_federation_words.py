"""Texts in a federation: what sites are told, what they learn, and what a private step changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.bundle import Input
from pipelines.federation.learner import Local, Valid, learned, learned_privately, loaded, measured, weights_of
from pipelines.federation.models import model_told
from pipelines.federation.words import Words
from pipelines.recipes.text.lstm import LstmText
from pipelines.training.lstm_text import LstmConfig
from pipelines.training.network import Spread
from pipelines.training.tokens import train_tokenizer
from tests.late import needs

needs("torch")

CLASSES = ["food", "sport", "weather"]
WORDS = {"food": "soup bread salt", "sport": "ball goal team", "weather": "rain wind sun"}
INPUTS = [Input(name="title", dtype="string"), Input(name="text", dtype="string")]
NOTHING = Spread(mean=np.zeros(0), deviation=np.zeros(0), counts={})
HOW = Local(epochs=3, batch_size=16, learning_rate=0.02, decay=0.0, clip=1.0, proximal=0.0)


def frame(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    labels = rng.choice(CLASSES, rows)
    said = [" ".join(rng.choice([*WORDS[label].split(), "the", "a"], 8)) for label in labels]
    return pd.DataFrame({"title": ["news"] * rows, "text": said, "label": labels})


@pytest.fixture(scope="module")
def words() -> Words:
    tokenizer = train_tokenizer([" ".join(WORDS.values())], unit="word", vocabulary=200, min_frequency=1)
    return Words(
        fields=("title", "text"),
        config=LstmConfig(embedding=8, hidden=4, dropout=0.1),
        max_characters=1000,
        max_tokens=20,
        tokenizer=tokenizer,
        classes=CLASSES,
    )


def numbers(rows: pd.DataFrame) -> Any:
    return rows["label"].map({name: at for at, name in enumerate(CLASSES)}).to_numpy(np.int64)


def test_a_site_makes_the_same_model_of_what_it_is_told(words: Words) -> None:
    made = model_told(words.told(), INPUTS, CLASSES)
    rows = frame(20, 1)
    assert made.count == words.count == len(words.first(7))
    assert [row.tolist() for row in made.read(rows)] == [row.tolist() for row in words.read(rows)]
    assert words.first(7) == pytest.approx(made.first(7))
    for change in ({"tokenizer": "{}"}, {"sizes": {"hidden": "many"}}, {"kind": "tree"}):
        with pytest.raises((ValueError, KeyError)):
            model_told({**words.told(), **change}, INPUTS, CLASSES)


def test_weights_come_out_of_torch_as_they_went_in(words: Words) -> None:
    weights = np.random.default_rng(0).normal(size=words.count).astype(np.float32).astype(np.float64)
    assert weights_of(words, loaded(words, weights)) == pytest.approx(weights)
    private = loaded(words, weights, private=True)
    assert weights_of(words, private) == pytest.approx(weights), "layers of a private training have other names"


def test_sites_learn_texts_of_three_classes_together(words: Words) -> None:
    sites = [frame(60, seed) for seed in range(3)]
    weights, valid = words.first(7), frame(90, 9)
    seen = words.features(words.read(valid), NOTHING)
    before = measured(words.scores(weights, seen), numbers(valid))
    for number in range(3):
        updates = [
            learned(words, weights, words.read(rows), numbers(rows), HOW, [7, number, at])
            for at, rows in enumerate(sites)
        ]
        weights = weights + np.mean(updates, axis=0)
    after = measured(words.scores(weights, seen), numbers(valid))
    assert before["accuracy"] < 0.6 < 0.9 < after["accuracy"]
    assert after["loss"] < before["loss"]
    assert "roc_auc" not in after, "three classes have none"


def test_the_same_seed_gives_the_same_update_and_a_proximal_term_holds_it_back(words: Words) -> None:
    rows = frame(40, 1)
    given = (words, words.first(7), words.read(rows), numbers(rows))
    once, again = (learned(*given, HOW, [1, 2]) for _ in range(2))
    assert np.array_equal(once, again)
    held = learned(*given, Local(**{**asdict(HOW), "proximal": 50.0}), [1, 2])
    assert np.linalg.norm(held) < 0.8 * np.linalg.norm(once)


@pytest.mark.parametrize("drawn", [0.5, 1e-9])
def test_private_steps_are_noisy_also_where_no_row_is_drawn(words: Words, drawn: float) -> None:
    pytest.importorskip("opacus")
    rows = frame(40, 1)
    private: Mapping[str, Any] = {"noise": 1.0, "clip": 1.0, "drawn": drawn, "steps": 2}
    first, second = (
        learned_privately(words, words.first(7), words.read(rows), numbers(rows), HOW, private) for _ in range(2)
    )
    assert np.isfinite(first).all()
    assert not np.allclose(first, second), "the noise is new each time"


def test_the_graph_answers_as_the_coordinator_measured(words: Words, tmp_path: Any) -> None:
    import onnxruntime

    valid = frame(60, 3)
    x, weights = words.read(valid), words.first(3) * 3
    recipe = LstmText(recipe="embedding_lstm", model=words.config)
    given = Valid(x=x, y=numbers(valid), losses=np.ones(60))
    found = words.finish(weights, NOTHING, recipe, given, False, tmp_path)
    raw = words.scores(weights, x) / found["parameters"]["temperature"]
    expected = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    graph = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    answers = [graph.run(["probabilities"], {"ids": row[None]})[0][0] for row in x]
    assert np.array(answers) == pytest.approx(expected, abs=1e-4)
    assert found["decision"] is None
    assert (tmp_path / "tokenizer.json").exists()
    assert (tmp_path / "text.json").exists()
