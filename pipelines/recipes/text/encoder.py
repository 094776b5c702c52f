"""Recipe `encoder`: a frozen encoder's vector of a text beside its TF-IDF terms, a linear model, one ONNX graph."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.dataclasses import dataclass

from pipelines.recipes.text.base import TextRecipe
from pipelines.task import STRICT, Progress
from pipelines.training.encoder import EncoderConfig
from pipelines.training.linear_text import LinearConfig

if TYPE_CHECKING:
    from pipelines.recipes.text.examples import Examples


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EncoderModel(LinearConfig):
    """A linear model, and which encoder is beside its terms. threads: of the encoding; 0 takes every core."""

    strengths: tuple[float, ...] = (0.1, 0.3, 1.0)
    folds: int = 3
    ratio_powers: tuple[float, ...] = (0.0, 0.5)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    threads: int = 0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EncoderText(TextRecipe):
    """TF-IDF and a frozen encoder, side by side.

    Terms are made of the encoder's own tokens, so that a text is tokenised once; `text.unit`, `text.vocabulary` and
    `text.min_frequency` do not apply.
    """

    model: EncoderModel = field(default_factory=EncoderModel)

    def learn(self, examples: Examples, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """See `train_encoder`; the vectors are kept beside the checkpoints of all trainings."""
        return train_encoder(examples, self, out, checkpoints.parent / "encoders", progress)


def train_encoder(
    examples: Examples, config: EncoderText, out: Path, cache: Path, progress: Progress
) -> dict[str, Any]:
    """Fit on train and valid together, as `train_linear` does; writes tokenizer.json, model.onnx and text.json."""
    import pandas as pd

    from pipelines.recipes.text.examples import joined_texts, label_numbers, write_spec
    from pipelines.recipes.text.served import apart
    from pipelines.training.encoder import encode, read_encoder
    from pipelines.training.onnx_encoder import write_encoder_graph
    from pipelines.training.terms import fit_terms
    from pipelines.training.tokens import tokenise

    encoder = read_encoder(config.model.encoder, cache)
    rows = pd.concat([examples.train, examples.valid], ignore_index=True)
    texts = joined_texts(rows, examples.fields, config.text.max_characters)
    ids = tokenise(encoder.tokenizer, texts, config.text.max_tokens)
    vectors = encode(encoder, ids, config.model.encoder.max_tokens, config.model.threads, progress)
    unused = [one for one in (encoder.pad_id, encoder.unknown_id) if one is not None]
    labels = label_numbers(rows, examples.classes)
    found = fit_terms(
        config.model, config.seed, texts, ids, labels, len(examples.classes), progress, unused=unused, vectors=vectors
    )
    encoder.tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    write_encoder_graph(
        out / "model.onnx",
        encoder.graph,
        terms=found.terms,
        idf=found.model.idf,
        weights=found.model.weights * found.factor,
        bias=found.model.bias * found.factor,
    )
    width = vectors.shape[1]
    # Of a BERT: four times its width between two layers, and what attention holds beside it.
    write_spec(
        out,
        config.text,
        explain="occlusion",
        per_row=6 * len(found.terms),
        per_token=8 * width,
        pad_id=encoder.pad_id,
        max_padding=0.05,
    )
    parameters = {**found.parameters, "width": width}
    if encoder.revision:
        parameters["encoder_revision"] = encoder.revision
    result = {"history": found.history, "parameters": parameters, "device": "cpu"}
    if not config.model.encoder.int8:
        return result
    parameters["form"] = "int8"
    return {**result, "tolerance": apart(examples, config, "onnx", out)}
