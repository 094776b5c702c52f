"""Recipes of vectors: `lsa` learns them from the texts of the task, `encoder` takes those of a pretrained encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from contracts.errors import PlatformError
from pipelines.recipes.text.settings import TextTaskConfig
from pipelines.recipes.text.terms import TermsConfig
from pipelines.task import STRICT, GateConfig, Progress, TaskConfig
from pipelines.training.encoder import EncoderConfig

if TYPE_CHECKING:
    from pipelines.task import Task

_COMPARED = 64  # validation texts that show how exact the arithmetic of the served form is


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LsaModel(TermsConfig):
    """dimensions: of the vectors; fewer where there are not as many texts or terms.

    shrinkage: directions in which texts of the same meaning differ count less, all the more the smaller it is; None
    learns from the texts alone.
    """

    dimensions: int = Field(default=128, ge=2)
    shrinkage: Annotated[float, Field(gt=0)] | None = 0.1


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LsaText(TextTaskConfig):
    """Latent semantic analysis: the directions along which the TF-IDF of the texts differs most."""

    model: LsaModel = field(default_factory=LsaModel)

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Learn from all texts but those of the test, and from which of them mean the same."""
        from sklearn.decomposition import TruncatedSVD

        from pipelines.recipes.text.terms import learn_terms, read_parts
        from pipelines.training.onnx_terms import write_vector_graph
        from pipelines.training.text_vectors import within_groups

        parts = read_parts(task, self, dataset)
        texts = parts.train_texts + parts.valid_texts
        terms = learn_terms(texts, self.text, self.model)
        given = terms.tfidf(texts)
        dimensions = min(self.model.dimensions, *(size - 1 for size in given.shape))
        if dimensions < 2:
            raise PlatformError(
                "too few texts to learn vectors from",
                detail=f"{given.shape[0]} texts with {given.shape[1]} terms",
                fix="give more texts",
                code="bad_data",
            )
        svd = TruncatedSVD(dimensions, random_state=self.seed).fit(given)
        directions = svd.components_.T
        if self.model.shrinkage is not None:
            groups = [*parts.train["label"], *parts.valid["label"]]
            directions = directions @ within_groups(given @ directions, groups, self.model.shrinkage)
        progress(1, 1)
        out.mkdir(parents=True, exist_ok=True)
        write_vector_graph(out / "model.onnx", terms.weights, directions)
        terms.save(out, self.text, "occlusion")
        explained = float(svd.explained_variance_ratio_.sum())
        parameters = {"dimensions": dimensions, "terms": len(terms.weights.terms), "explained": explained}
        return {**_result(dimensions), "parameters": parameters}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EncoderModel:
    """Which encoder; its vectors are those of full precision unless `encoder.int8`."""

    encoder: EncoderConfig = field(default_factory=lambda: EncoderConfig(int8=False))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EncoderVectors(TextTaskConfig):
    """A pretrained encoder as it is; `text.unit`, `text.vocabulary` and `text.min_frequency` do not apply."""

    model: EncoderModel = field(default_factory=EncoderModel)

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Nothing is learned: the encoder's graph is written as it is served."""
        from pipelines.recipes.text.examples import write_spec
        from pipelines.recipes.text.terms import read_parts
        from pipelines.training.encoder import read_encoder, vectors_apart
        from pipelines.training.onnx_encoder import write_embedding_graph
        from pipelines.training.tokens import tokenise

        encoder = read_encoder(self.model.encoder, checkpoints.parent / "encoders")
        out.mkdir(parents=True, exist_ok=True)
        width = write_embedding_graph(out / "model.onnx", encoder.graph)
        encoder.tokenizer.save(str(out / "tokenizer.json"), pretty=False)
        # Of a BERT: four times its width between two layers, and what attention holds beside it.
        sizes = {"per_row": width, "per_token": 8 * width}
        write_spec(out, self.text, explain="occlusion", pad_id=encoder.pad_id, max_padding=0.05, **sizes)
        progress(1, 1)
        found = {**_result(width), "parameters": {"dimensions": width, "int8": self.model.encoder.int8}}
        if not self.model.encoder.int8:
            return found
        texts = read_parts(task, self, dataset).valid_texts[:_COMPARED]
        ids = tokenise(encoder.tokenizer, texts, self.text.max_tokens)
        return {**found, "tolerance": vectors_apart(encoder, ids, self.model.encoder.max_tokens)}


def embedding_recipes(gate: GateConfig) -> Mapping[str, TaskConfig]:
    """The recipes of every task of vectors, by name."""
    return {"lsa": LsaText(recipe="lsa", gate=gate), "encoder": EncoderVectors(recipe="encoder", gate=gate)}


def _result(dimensions: int) -> dict[str, Any]:
    output = {"problem": "embedding", "dimensions": dimensions, "normalised": True}
    return {"engine": "onnx", "output": output, "decision": None, "history": [], "device": "cpu"}
