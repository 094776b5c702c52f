"""Weights in the layout of transformers, served by torch with the answers that the ONNX graph gives."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.bundle import Bundle, BundleDocument
from contracts.engine import TokenEngine
from contracts.engines import load_engine
from contracts.engines.torch_text import CONFIG, WEIGHTS, read_classifier
from contracts.errors import PlatformError
from pipelines.training.pretrained import new_classifier, pretrained_classifier
from tests.late import Late

torch, tensors = Late("torch"), Late("safetensors.torch")
transformer = Late("pipelines.training.transformer")
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
TEXTS = np.array(["w1", "w3 w4 w59", " ".join(f"w{at}" for at in range(1, 39)), ""], object)


def bundle_at(folder: Path, engine: str) -> Bundle:
    document = {
        "name": "mini",
        "task": "mini",
        "recipe": "transformer",
        "modality": "text",
        "engine": engine,
        "signature": {"inputs": [{"name": "text", "dtype": "string"}], "classes": ["a", "b", "c"]},
        "gate": {"passed": True, "checks": []},
        "lineage": {"code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": "now"},
        "files": {},
    }
    return Bundle(folder, BundleDocument.model_validate(document), "digest")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    torch.manual_seed(3)
    model = transformer.Network(new_classifier(classes=3, **SIZES))
    for weights in model.parameters():
        torch.nn.init.normal_(weights, std=0.3)
    words = {"[PAD]": 0, "[START]": 40, "[UNK]": 41} | {f"w{at}": at for at in range(1, 40)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="[START] $A", special_tokens=[("[START]", 40)])
    made = {}
    for engine in ("onnx", "torch"):
        folder = tmp_path_factory.mktemp(engine)
        transformer.export_transformer(model, folder / "model", engine=engine, gpu_precision="bf16")
        tokenizer.save(str(folder / "model" / "tokenizer.json"))
        made[engine] = bundle_at(folder, engine)
    return made


def test_torch_and_onnx_answer_alike_and_alone_as_together(bundles: dict[str, Bundle]) -> None:
    made = load_engine(bundles["torch"], device="cpu")
    assert isinstance(made, TokenEngine)
    engine: Any = made
    assert (engine.device.type, engine.dtype) == ("cpu", torch.float32)  # bf16 is for GPUs
    expected = load_engine(bundles["onnx"]).predict({"text": TEXTS})
    got = engine.predict({"text": TEXTS})
    np.testing.assert_allclose(got, expected, atol=1e-5)
    alone = np.concatenate([engine.predict({"text": TEXTS[at : at + 1]}) for at in range(len(TEXTS))])
    np.testing.assert_allclose(got, alone, atol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_gpu_answers_in_bf16_nearly_as_a_cpu_does(bundles: dict[str, Bundle], compiled: bool) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU on this machine")
    engine: Any = load_engine(bundles["torch"], device="cuda", compiled=compiled)
    assert (engine.device.type, engine.dtype) == ("cuda", torch.bfloat16)
    expected = load_engine(bundles["torch"], device="cpu").predict({"text": TEXTS})
    np.testing.assert_allclose(engine.predict({"text": TEXTS}), expected, atol=0.05)


def test_spans_that_are_left_out_are_words_and_never_the_mark_of_the_beginning(bundles: dict[str, Bundle]) -> None:
    reasons = load_engine(bundles["torch"], device="cpu").explain({"text": TEXTS}, 50)
    assert [len(one) for one in reasons] == [1, 3, 38, 0]
    lost = {reason.feature: reason.contribution for reason in reasons[1]}
    assert set(lost) == {"w3", "w4", "w59"}
    with_it, without = load_engine(bundles["torch"], device="cpu").predict(
        {"text": np.array(["w3 w4 w59", "w3 w59"], object)}
    )
    best = int(with_it.argmax())
    odds = [np.log(p[best] / (1 - p[best])) for p in (with_it, without)]
    assert lost["w4"] == pytest.approx(odds[0] - odds[1], abs=1e-4)


def test_a_word_of_several_tokens_is_left_out_as_one(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    import shutil

    from tokenizers import Tokenizer, models, pre_tokenizers

    shutil.copytree(bundles["torch"].path / "model", tmp_path / "model")
    words = {"[PAD]": 0, "[UNK]": 1, "play": 2, "##ing": 3, "well": 4}
    pieces = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    pieces.save(str(tmp_path / "model" / "tokenizer.json"))
    engine: Any = load_engine(bundle_at(tmp_path, "torch"))
    text = {"text": np.array(["playing well"], object)}
    assert engine.tokenise(text) == [[2, 3, 4]]
    assert {reason.feature for reason in engine.explain(text, 5)[0]} == {"playing", "well"}


def test_a_device_that_is_not_there_is_refused(bundles: dict[str, Bundle]) -> None:
    for device in ("cuda:7", "tpu") if not torch.cuda.is_available() else ("tpu",):
        with pytest.raises(PlatformError, match="cannot serve on device") as caught:
            load_engine(bundles["torch"], device=device)
        assert "cpu" in caught.value.detail


def test_without_torch_the_error_names_the_extra_and_the_image(bundles: dict[str, Bundle]) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from contracts.bundle import Bundle, BundleDocument\nfrom contracts.engines import load_engine\n"
        "from contracts.errors import PlatformError\nfrom pathlib import Path\n"
        "document = BundleDocument.model_validate_json(sys.argv[2])\n"
        "try: load_engine(Bundle(Path(sys.argv[1]), document, ''))\n"
        "except PlatformError as err: print(err.headline, '|', err.fix)\n"
    )
    bundle = bundles["torch"]
    command = [sys.executable, "-c", code, str(bundle.path), bundle.document.model_dump_json()]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "torch is not installed" in said
    assert "fairlead[services,torch]" in said
    assert "VARIANT=gpu" in said


def written(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    new_classifier(classes=3, **SIZES).save_pretrained(tmp_path)
    return tmp_path


def test_weights_have_the_names_that_transformers_uses(tmp_path: Path) -> None:
    names = set(tensors.load_file(written(tmp_path) / WEIGHTS))
    assert "bert.encoder.layer.1.attention.self.query.weight" in names
    assert {"bert.pooler.dense.bias", "classifier.weight", "bert.embeddings.token_type_embeddings.weight"} <= names
    config = json.loads((tmp_path / CONFIG).read_text())
    assert (config["model_type"], config["hidden_size"], len(config["id2label"])) == ("bert", 32, 3)


def test_weights_without_a_classifier_get_a_new_one_only_for_training(tmp_path: Path) -> None:
    folder = written(tmp_path)
    kept = {
        name.removeprefix("bert."): value
        for name, value in tensors.load_file(folder / WEIGHTS).items()
        if not name.startswith(("classifier", "bert.pooler"))
    }
    tensors.save_file(kept, folder / WEIGHTS, metadata={"format": "pt"})
    model = pretrained_classifier(folder, 5, 0.2)
    assert model.classifier.out_features == 5
    assert model.dropout.p == 0.2
    name = "embeddings.position_embeddings.weight"
    torch.testing.assert_close(model.bert.state_dict()[name], kept[name])
    with pytest.raises(PlatformError, match="no usable weights") as caught:
        read_classifier(folder, 3)
    assert "bert.pooler.dense" in caught.value.detail or "classifier" in caught.value.detail


@pytest.mark.parametrize("change", [{"model_type": "nonsense"}, {"hidden_size": 64}, {"num_hidden_layers": 3}])
def test_what_is_no_such_model_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = written(tmp_path)
    config = json.loads((folder / CONFIG).read_text()) | change
    (folder / CONFIG).write_text(json.dumps(config))
    for read in (lambda: read_classifier(folder, 3), lambda: pretrained_classifier(folder, 3, 0.0)):
        with pytest.raises(PlatformError, match="no usable weights"):
            read()


def test_a_classifier_of_other_classes_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="no usable weights") as caught:
        read_classifier(written(tmp_path), 4)
    assert "3 classes, expected 4" in caught.value.detail


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    folder = written(tmp_path)
    torch.save({"a": torch.zeros(1)}, folder / WEIGHTS)
    with pytest.raises(PlatformError, match="no usable weights"):
        read_classifier(folder, 3)
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    with pytest.raises(PlatformError, match="is not there"):
        pretrained_classifier(folder, 3, 0.0)


def test_weights_that_earlier_releases_wrote_answer_as_then() -> None:
    folder = Path(__file__).with_name("weights_before")
    then = json.loads((folder / "answers.json").read_text())
    model = read_classifier(folder, 3)
    for ids, expected in zip(then["ids"], then["probabilities"], strict=True):
        with torch.no_grad():
            found = model(input_ids=torch.tensor([ids])).logits.softmax(-1).numpy()[0]
        np.testing.assert_allclose(found, expected, atol=1e-6)
