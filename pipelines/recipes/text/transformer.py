"""Recipe `transformer`: BERT's shape, from the task's texts or from pretrained weights; served as int8 if as good."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic.dataclasses import dataclass

from contracts.bundle import Bundle, read_bundle
from contracts.errors import PlatformError
from pipelines.federation.settings import FederationConfig
from pipelines.recipes.text.neural import NeuralText
from pipelines.recipes.text.served import COMPARED, apart, engine_of, served_as
from pipelines.search_space import Dimension
from pipelines.settings import setting
from pipelines.task import STRICT, GateConfig, Progress, problem_of

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.federation.words import Transformer
    from pipelines.recipes.text.examples import Examples
    from pipelines.task import Task


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TransformerModel:
    """Where the weights come from, and in which form they are served.

    layers, width, heads, inner: sizes of a model that begins with random weights.  dropout: while training.
    pretrained: folder with config.json, model.safetensors and tokenizer.json, as transformers saves them, to go on
    from; or s3://, ``package:NAME`` of an installed one, or ``hub:ORG/NAME@revision`` where the platform has a hub.
    bundle: folder (or s3://) of a published bundle of this recipe: nothing is trained, its model is exported again.
    engine: ``onnx``, or ``torch`` for a service with a GPU.  int8: quantise a graph, within `gate.int8_tolerance`.
    gpu_precision: of engine ``torch``.
    """

    layers: int = 2
    width: int = 128
    heads: int = 4
    inner: int = 256
    dropout: float = 0.3
    pretrained: str = ""
    bundle: str = ""
    engine: Literal["onnx", "torch"] = "onnx"
    int8: bool = True
    gpu_precision: Literal["fp32", "bf16"] = "bf16"

    # Sizes are those of the pretrained weights where there are such.
    SPACE: ClassVar[Mapping[str, Dimension]] = {
        "dropout": Dimension(low=0.0, high=0.5),
        "layers": Dimension(low=1, high=4, when={"pretrained": ("",)}),
        "inner": Dimension(low=128, high=512, log=True, when={"pretrained": ("",)}),
    }


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TransformerText(NeuralText):
    """BERT's shape, see `TransformerModel`."""

    model: TransformerModel = field(default_factory=TransformerModel)
    federation: FederationConfig = field(default_factory=FederationConfig)

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """As any recipe of texts, or by a federation."""
        if self.federation.is_on:
            return self.train_by_sites(task, dataset, out, checkpoints, progress)
        return super().train(task, dataset, out, checkpoints, progress)

    def federated(self, task: Task, classes: Sequence[str]) -> Transformer:
        """What sites train together: with the tokens of the task's own sample, or with pretrained weights.

        Raises:
            PlatformError: ``code="bad_config"``: nothing is trained, or no graph is made of it.
        """
        from pipelines.federation.words import transformer_of
        from pipelines.training.device import import_torch

        for key, wrong, value in (
            ("bundle", bool(self.model.bundle), ""),
            ("engine", self.model.engine != "onnx", "onnx"),
        ):
            if wrong:
                raise PlatformError(
                    f"a federation cannot have this model.{key}",
                    detail="sites train weights, and get the graph that is made of them",
                    fix=setting(f"model.{key}", value),
                    code="bad_config",
                )
        import_torch().manual_seed(self.seed)
        tokenizer, network, _ = _begin(self.public_texts(task), len(classes), self)
        limit = _cut(tokenizer, network, self)
        return transformer_of(network, tokenizer, limit, self, task, classes)

    def save(self, network: Any, factor: float, classes: int, tokenizer: Any, out: Path) -> None:
        """Write tokenizer, graph or weights, and spec of a trained network; `factor` is that of its scores."""
        import torch

        from pipelines.training.pretrained import last_layer

        with torch.no_grad():
            head = last_layer(network, classes)
            head.weight *= factor
            head.bias *= factor
        tokenizer.save(str(out / "tokenizer.json"), pretty=False)
        _export(network.cpu(), self, out)

    def form(self, task: Task, valid: pd.DataFrame, classes: list[str], out: Path) -> dict[str, Any]:
        """Choose the form that is served, see `_form`, of a model that a federation has written to `out`."""
        from pipelines.recipes.text.examples import Examples, text_fields

        examples = Examples(task=task, train=valid, valid=valid, fields=text_fields(task, self), classes=classes)
        return _form(self.model.engine, examples, self, out)

    def training_part(self) -> Self:
        """Keeps what weights of 8 bits are measured by, where training chooses them."""
        if not self.model.int8:
            return super().training_part()
        kept = GateConfig(primary=self.gate.primary, int8_tolerance=self.gate.int8_tolerance)
        return replace(super().training_part(), gate=kept)

    def network(self, classes: int, *, vocabulary: int = 0, folder: Path | None = None) -> Any:
        """What is trained: the weights of `folder`, or new ones for `vocabulary` tokens."""
        from pipelines.training.pretrained import new_classifier, pretrained_classifier
        from pipelines.training.transformer import Network

        model = self.model
        if folder:
            return Network(pretrained_classifier(folder, classes, model.dropout))
        return Network(new_classifier(classes=classes, **self.sizes(vocabulary)))

    def sizes(self, vocabulary: int) -> dict[str, Any]:
        """Of a model that begins with random weights."""
        model = self.model
        return {
            "vocabulary": vocabulary,
            "layers": model.layers,
            "width": model.width,
            "heads": model.heads,
            "inner": model.inner,
            "max_tokens": self.text.max_tokens,
            "dropout": model.dropout,
        }

    def learn(self, examples: Examples, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """See `train_transformer`."""
        return train_transformer(examples, self, out, checkpoints, progress)


def train_transformer(
    examples: Examples, config: TransformerText, out: Path, checkpoints: Path, progress: Progress
) -> dict[str, Any]:
    """Write tokenizer, model and spec to `out`, and choose the form that is served on the rows of `valid`."""
    from pipelines.training.distributed import group

    if not config.model.bundle:
        found = _train(examples, config, out, checkpoints, progress)
    elif group().leads:
        found = _take(config, examples.classes, out)
    if not group().leads:
        return {"history": [], "parameters": {}, "device": config.training.device}
    form = _form(config.model.engine, examples, config, out)
    return {**found, **form, "parameters": {**found["parameters"], **form["parameters"]}}


def _train(
    examples: Examples, config: TransformerText, out: Path, checkpoints: Path, progress: Progress
) -> dict[str, Any]:
    from pipelines.recipes.text.neural import Corpus, begin, fit
    from pipelines.training.batches import scores
    from pipelines.training.calibration import fit_temperature
    from pipelines.training.distributed import group

    device, texts = begin(examples, config)
    tokenizer, network, revision = _begin(texts["train"], len(examples.classes), config)
    model, pad_id, limit = network.model, network.pad_id, _cut(tokenizer, network, config)
    known = {"pad_id": pad_id, "unknown_id": _unknown(tokenizer), "marks": 1}
    corpus = Corpus.of(examples, texts, tokenizer, limit, **known)
    network = network.to(device)
    history = fit(network, corpus, config, device, checkpoints, progress)
    found = {"history": history, "parameters": {}, "device": device}
    if not group().leads:
        return found
    factor = fit_temperature(scores(network, corpus.ids["valid"], pad_id, device), corpus.labels["valid"])
    config.save(network, factor, len(examples.classes), tokenizer, out)
    found["parameters"] = {
        "temperature": 1 / factor,
        "vocabulary": tokenizer.get_vocab_size(),
        "epochs_run": len(history),
        "weights": sum(p.numel() for p in network.parameters()),
        "layers": model.config.num_hidden_layers,
        "width": model.config.hidden_size,
        **({"pretrained_revision": revision} if revision else {}),
    }
    return found


def _begin(texts: list[str], classes: int, config: TransformerText) -> tuple[Any, Any, str]:
    """Tokenizer and network: pretrained, with a hub's revision, or of random weights with the tokens of `texts`."""
    from pipelines.io.weights import weights_here
    from pipelines.training.pretrained import import_transformers
    from pipelines.training.tokens import train_tokenizer

    import_transformers()
    wanted = config.model
    if wanted.pretrained:
        from tokenizers import Tokenizer

        with weights_here(wanted.pretrained) as weights:
            network = config.network(classes, folder=weights.folder)
            file = weights.folder / "tokenizer.json"
            if not file.exists():
                raise PlatformError(f"{file} is missing", fix="save the tokenizer with the model", code="bad_weights")
            tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_padding()
        return tokenizer, network, weights.revision
    text = config.text
    tokenizer = train_tokenizer(
        texts, unit=text.unit, vocabulary=text.vocabulary, min_frequency=text.min_frequency, boundaries=True
    )
    return tokenizer, config.network(classes, vocabulary=tokenizer.get_vocab_size()), ""


def _cut(tokenizer: Any, network: Any, config: TransformerText) -> int:
    """Cut texts where the settings or the model end; at how many tokens."""
    from pipelines.training.pretrained import longest

    limit = min(config.text.max_tokens, longest(network.model))
    tokenizer.enable_truncation(limit)  # which keeps the token of the end
    return limit


def _unknown(tokenizer: Any) -> int:
    """The id of unknown words; where there is none, that of the mark at the beginning stands for a word left out."""
    found = [tokenizer.token_to_id(name) for name in ("[UNK]", "<unk>", "[MASK]", "<mask>", "<s>")]
    return next((one for one in found if one is not None), 0)


def _export(network: Any, config: TransformerText, out: Path) -> None:
    from pipelines.training.transformer import export_transformer

    export_transformer(
        network,
        out,
        engine=config.model.engine,
        max_characters=config.text.max_characters,
        max_tokens=config.text.max_tokens,
        gpu_precision=config.model.gpu_precision,
    )


def _take(config: TransformerText, classes: list[str], out: Path) -> dict[str, Any]:
    """The model of a published bundle, in the form that `config` asks for."""
    from pipelines.data import seen
    from pipelines.io.remote import folder_here

    with folder_here(config.model.bundle, "bundle.json") as folder:
        bundle = read_bundle(folder)
        document = bundle.document
        theirs: list[str] = getattr(document.signature.output, "classes", [])
        if document.recipe != config.recipe or theirs != classes:
            raise _unfit(bundle, f"it is of recipe {document.recipe} with classes {', '.join(theirs) or 'none'}")
        seen.keep_of(bundle.path, out)
        shutil.copy(bundle.model_path / "tokenizer.json", out)
        if document.engine == "torch":
            from contracts.engines.torch_text import read_classifier
            from pipelines.training.transformer import Network

            _export(Network(read_classifier(bundle.model_path, len(classes))), config, out)
        elif config.model.engine == "torch":
            raise _unfit(bundle, "it has a graph, of which torch cannot get the weights back")
        else:
            for name in ("model.onnx", "text.json"):
                shutil.copy(bundle.model_path / name, out)
    taken = {key: value for key, value in document.parameters.items() if key not in ("form", "exported_from")}
    return {
        "history": [],
        "parameters": {**taken, "exported_from": bundle.digest[:12]},
        "device": "cpu",
    }


def _unfit(bundle: Bundle, why: str) -> PlatformError:
    return PlatformError(
        f"model.bundle cannot be used: {bundle.path}",
        detail=why,
        fix="give a bundle of this recipe, trained on the same classes, or leave model.bundle out",
        code="bad_config",
    )


def _form(engine: str, examples: Examples, config: TransformerText, out: Path) -> dict[str, Any]:
    """Quantise if it is as good; how far answers of the chosen form may lie apart, and what was measured."""
    from pipelines.training.quantise import MODEL, is_quantised, quantise_if_as_good

    if engine == "torch":
        exact = config.model.gpu_precision == "fp32"
        return {
            "engine": engine,
            "tolerance": 1e-4 if exact else _apart_in_bf16(examples, config, out),
            "parameters": {"form": "weights", "gpu_precision": config.model.gpu_precision},
        }
    if is_quantised(out / MODEL):
        raise PlatformError(
            "the bundle's model has weights of 8 bits already",
            fix="give the version that it was made from, or leave model.bundle out",
            code="bad_config",
        )
    if not config.model.int8:
        return {"engine": engine, "parameters": {"form": "fp32"}}
    metric = config.gate.primary
    before, check = quantise_if_as_good(
        out, _quality(examples, metric, config), metric=metric, largest_drop=config.gate.int8_tolerance
    )
    measured = {f"valid_{metric}_fp32": before, f"valid_{metric}_int8": check.value}
    form = {"engine": engine, "choices": [check.model_dump()]}
    if not check.passed:
        return {**form, "parameters": {"form": "fp32", **measured}}
    return {**form, "tolerance": apart(examples, config, engine, out), "parameters": {"form": "int8", **measured}}


def _quality(examples: Examples, metric: str, config: TransformerText) -> Callable[[Path], float]:
    """`metric` of the model in a folder on the validation rows; turned round when less of it is better."""
    from pipelines.evaluation import get_evaluation, scoring
    from pipelines.evaluation.gate_metrics import worth

    evaluation = get_evaluation(problem_of(examples.task))

    def measure(folder: Path) -> float:
        columns = {name: examples.valid[name].to_numpy(object) for name in examples.fields}
        document = served_as(folder, examples, config, config.model.engine).document
        engine = engine_of(folder, examples, config, config.model.engine)
        probability = scoring.predict(engine, columns, document)
        found = evaluation.measure_for(examples.valid, probability, document.signature.output, None)(None)
        return worth(evaluation, found, metric)

    return measure


def _apart_in_bf16(examples: Examples, config: TransformerText, out: Path) -> float:
    """Twice the largest difference that bf16 makes, here on the CPU; a GPU rounds at the same places."""
    import numpy as np
    import torch

    from contracts.engines.torch_text import read_classifier
    from pipelines.training.transformer import Network

    engine = engine_of(out, examples, config, config.model.engine)
    rows = {name: examples.valid[name].to_numpy(object)[:COMPARED] for name in examples.fields}
    exact = engine.predict(rows)
    model = Network(read_classifier(out, len(examples.classes)).bfloat16()).eval()
    with torch.inference_mode():
        rounded = [model(torch.tensor([row])).float().softmax(-1).double().numpy()[0] for row in engine.tokenise(rows)]
    return max(1e-3, 2 * float(np.abs(exact - np.array(rounded)).max()))
