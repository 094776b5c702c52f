"""A transformer is exported with open axes, and quantised only when it stays as good."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from contracts.bundle import Bundle, write_bundle
from contracts.engines import load_engine
from pipelines.training.pretrained import new_classifier, new_encoder, pretrained_encoder
from pipelines.training.quantise import quantise_if_as_good
from tests.late import Late

torch, transformer = Late("torch"), Late("pipelines.training.transformer")
pytestmark = pytest.mark.skipif(find_spec("transformers") is None, reason="it is part of the extra torch")

SIZES: dict[str, Any] = {
    "vocabulary": 60,
    "layers": 2,
    "width": 32,
    "heads": 4,
    "inner": 64,
    "max_tokens": 40,
    "dropout": 0.1,
}
SIGNATURE = {"inputs": [{"name": "text", "dtype": "string"}], "classes": ["a", "b", "c"]}
LINEAGE = {"code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": "2026-01-01T00:00:00Z"}


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(3)
    return transformer.Network(new_classifier(classes=3, **SIZES)).eval()


@pytest.fixture
def folder(model: Any, tmp_path: Path) -> Path:
    target = tmp_path / "source" / "model"
    transformer.export_transformer(model, target)
    words = {"[PAD]": 0} | {f"w{at}": at for at in range(1, 60)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[PAD]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(target / "tokenizer.json"))
    return target


def engine_of(folder: Path, root: Path) -> Any:
    (folder.parent / "golden.jsonl").write_text(json.dumps({"inputs": {"text": "w1"}, "probabilities": [1, 0, 0]}))
    fields = {"name": "t", "task": "t", "recipe": "r", "modality": "text", "engine": "onnx", "signature": SIGNATURE}
    bundle: Bundle = write_bundle(
        folder.parent, root, fields | {"gate": {"passed": True, "checks": []}, "lineage": LINEAGE}
    )
    return load_engine(bundle)


def texts(lengths: list[int]) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    lines = [" ".join(f"w{at}" for at in rng.integers(1, 60, length)) for length in lengths]
    return {"text": np.array(lines, object)}


LENGTHS = [1, 3, 3, 4, 9, 10, 20, 39]


def test_the_exported_model_answers_as_torch_does_for_every_length(model: Any, folder: Path, tmp_path: Path) -> None:
    engine = engine_of(folder, tmp_path / "bundles")
    columns = texts(LENGTHS)
    got = engine.predict(columns)
    for row, ids in enumerate(engine.tokenise(columns)):
        with torch.no_grad():
            expected = model(torch.tensor([ids])).softmax(-1).numpy()[0]
        assert got[row] == pytest.approx(expected, abs=1e-5)


def test_an_encoder_is_exported_with_its_padding_unseen(tmp_path: Path) -> None:
    import onnxruntime

    torch.manual_seed(5)
    encoder = new_encoder(**SIZES)
    encoder.save_pretrained(tmp_path)
    again = pretrained_encoder(tmp_path).train()  # the graph has no dropout all the same
    session = onnxruntime.InferenceSession(transformer.encoder_graph(again).SerializeToString())
    ids = np.random.default_rng(1).integers(1, 60, (3, 9))
    mask = (np.arange(9) < np.array([[9], [4], [1]])).astype(np.int64)
    got = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    for row, length in enumerate((9, 4, 1)):
        with torch.no_grad():
            alone = encoder.eval()(input_ids=torch.tensor(ids[row : row + 1, :length])).last_hidden_state.numpy()[0]
        np.testing.assert_allclose(got[row, :length], alone, atol=1e-5)


def test_little_is_padded_and_no_row_is_lost(folder: Path, tmp_path: Path) -> None:
    engine = engine_of(folder, tmp_path / "bundles")
    lengths = np.random.default_rng(2).integers(1, 40, 300).tolist()
    assert sum(lengths) <= engine.padded(lengths) <= 1.053 * sum(lengths)
    assert sorted(at for run in engine._runs(lengths) for at in run) == list(range(300))


def test_explanations_of_a_long_text_cost_a_bounded_number_of_calls(folder: Path, tmp_path: Path) -> None:
    engine = engine_of(folder, tmp_path / "bundles")
    reasons = engine.explain(texts([39]), 3)
    assert len(reasons[0]) == 3
    assert all(reason.feature.startswith("w") for reason in reasons[0])


def agreement(reference: Any, root: Path) -> Any:
    """The share of texts on which the model in a folder agrees with `reference`."""
    columns = texts(list(range(2, 38)) * 3)
    expected = reference.predict(columns).argmax(axis=1)

    def quality(folder: Path) -> float:
        source = root / f"trial-{folder.parent.name}-{folder.name}"
        shutil.copytree(folder, source / "model")
        return float(
            (engine_of(source / "model", root / f"of-{source.name}").predict(columns).argmax(axis=1) == expected).mean()
        )

    return quality


def test_int8_replaces_a_model_that_it_agrees_with(folder: Path, tmp_path: Path) -> None:
    quality = agreement(engine_of(folder, tmp_path / "bundles"), tmp_path)
    before = (folder / "model.onnx").stat().st_size
    fp32, check = quantise_if_as_good(folder, quality, metric="agreement", largest_drop=0.05)
    assert fp32 == 1.0
    assert check.passed, check
    assert (check.metric, check.against) == ("agreement of int8 on the validation rows", "fp32")
    assert (folder / "model.onnx").stat().st_size < 0.75 * before


def test_int8_that_answers_worse_is_not_kept(folder: Path) -> None:
    before = (folder / "model.onnx").read_bytes()
    answers = iter([0.9, 0.8])
    fp32, check = quantise_if_as_good(folder, lambda _: next(answers), metric="f1", largest_drop=0.005)
    assert (fp32, check.passed, check.value) == (0.9, False, 0.8)
    assert check.limit == pytest.approx(0.895)
    assert (folder / "model.onnx").read_bytes() == before
