"""Recipe `linear` of texts with several labels: TF-IDF and a linear model for each label, exported to ONNX."""

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
class LabelsModel(TermsConfig):
    """strengths: candidates for C of the logistic regressions; the validation rows choose."""

    strengths: Annotated[tuple[float, ...], Field(min_length=1)] = (1.0, 3.0, 10.0, 30.0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LinearLabels(TextTaskConfig):
    """A linear model for each label, with a threshold of its own."""

    model: LabelsModel = field(default_factory=LabelsModel)

    def train(self, task: Task, dataset: Path, out: Path, checkpoints: Path, progress: Progress) -> dict[str, Any]:
        """Fit on the training rows; thresholds are chosen on the validation rows."""
        from pipelines.evaluation.multilabel import label_matrix, labels_of
        from pipelines.recipes.text.terms import learn_terms, read_parts
        from pipelines.training.labels import check_both
        from pipelines.training.onnx_terms import write_labels_graph
        from pipelines.training.text_labels import fit_text_labels

        parts = read_parts(task, self, dataset)
        labels = list(task.classes or sorted({name for text in parts.train["label"] for name in labels_of(text)}))
        true, unseen = (label_matrix(rows["label"], labels) for rows in (parts.train, parts.valid))
        for at, name in enumerate(labels):
            check_both(true[:, at], name)
        terms = learn_terms(parts.train_texts, self.text, self.model)
        given, held = terms.tfidf(parts.train_texts), terms.tfidf(parts.valid_texts)
        found = fit_text_labels(given, held, true, unseen, self.model.strengths, progress)
        out.mkdir(parents=True, exist_ok=True)
        write_labels_graph(out / "model.onnx", terms.weights, found.weights, found.bias)
        terms.save(out, self.text, "terms")
        return {
            "engine": "onnx",
            "output": {"problem": "multilabel", "labels": labels, "thresholds": found.thresholds},
            "decision": None,
            "history": found.history,
            "parameters": {"strength": found.strength, "terms": len(terms.weights.terms)},
            "device": "cpu",
        }
