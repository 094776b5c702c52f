"""Recipe `linear` of a number from a text: TF-IDF and a linear model, with an interval, exported to ONNX."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipelines.recipes.text.settings import TextTaskConfig
from pipelines.recipes.text.terms import TermsConfig
from pipelines.task import STRICT, Progress

if TYPE_CHECKING:
    from pipelines.task import Task


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NumberModel(TermsConfig):
    """penalties: candidates for alpha of the ridge regression; the validation rows choose."""

    penalties: Annotated[tuple[float, ...], Field(min_length=1)] = (0.03, 0.1, 0.3, 1.0, 3.0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LinearNumber(TextTaskConfig):
    """coverage: share of the true values that an answer's interval holds; None for no interval. unit: of the number."""

    model: NumberModel = field(default_factory=NumberModel)
    coverage: Annotated[float, Field(gt=0, lt=1)] | None = 0.9
    unit: str = ""

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Fit on the training rows; the validation rows say how wide an interval must be."""
        import numpy as np

        from pipelines.recipes.text.terms import learn_terms, read_parts
        from pipelines.training.onnx_terms import write_number_graph
        from pipelines.training.text_numbers import fit_text_number

        parts = read_parts(task, self, dataset)
        terms = learn_terms(parts.train_texts, self.text, self.model)
        given, held = terms.tfidf(parts.train_texts), terms.tfidf(parts.valid_texts)
        true, unseen = (rows["label"].to_numpy(dtype=np.float64) for rows in (parts.train, parts.valid))
        found = fit_text_number(given, held, true, unseen, self.model.penalties, self.coverage, self.seed, progress)
        out.mkdir(parents=True, exist_ok=True)
        write_number_graph(out / "model.onnx", terms.weights, found)
        terms.save(out, self.text, "terms")
        parameters = {"penalty": found.penalty, "terms": len(terms.weights.terms)}
        if found.spread is not None:
            parameters["margin"] = found.spread.margin
        return {
            "engine": "onnx",
            "output": {"problem": "regression", "unit": self.unit, "coverage": self.coverage},
            "decision": None,
            "history": found.history,
            "parameters": parameters,
            "device": "cpu",
        }
