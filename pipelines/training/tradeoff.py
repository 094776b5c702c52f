"""What treating groups alike costs: each strength of a mitigation, measured on the validation rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from pipelines.settings import setting
from pipelines.training.mitigation import Mitigation

if TYPE_CHECKING:
    from pipelines.task import Task, TaskConfig


def tried(
    task: Task,
    config: TaskConfig,
    classes: Sequence[str],
    dataset: Path,
    model: Path,
    fitted: Mapping[str, Any],
    strength: float,
) -> dict[str, Any]:
    """The quality and the ratio of selection of one trained model, by the engine that would serve it."""
    import pandas as pd

    from contracts import fairness
    from contracts.engines import load_engine
    from pipelines.data.sensitive import read_groups
    from pipelines.evaluation import get_evaluation, scoring
    from pipelines.task import class_output

    fields = {
        "name": task.name,
        "task": task.name,
        "recipe": config.recipe,
        "modality": task.modality,
        "engine": fitted["engine"],
        "signature": {
            "inputs": [item.model_dump() for item in task.inputs(config)],
            "output": class_output(task, config, classes),
        },
        "decision": fitted["decision"],
        "lineage": {"code_version": "", "data_version": "", "source": "", "seed": config.seed},
    }
    document = scoring.provisional(model.parent, fields).document
    engine = load_engine(scoring.provisional(model.parent, fields))
    frame = pd.read_parquet(dataset / "valid.parquet")
    answers = scoring.predict(engine, scoring.columns_of(frame, document.signature.inputs), document)
    evaluation = get_evaluation(document.signature.output.problem)
    given = (frame, answers, document.signature.output, document.decision)
    metrics = evaluation.measure_for(*given)(None)
    outcome = evaluation.outcome(*given, getattr(task, "favourable", ""))
    groups = read_groups(dataset, "valid", frame["id"])
    found: dict[str, Any] = {"selection_ratio": None}
    column = config.mitigation.column  # type: ignore[attr-defined]
    if groups is not None and outcome is not None:
        measured = fairness.measure(groups[[column]], outcome, config.gate.fairness.min_rows)
        found = {key: measured["columns"][column][key] for key in fairness.MEASURES}
    return {"strength": strength, **{key: metrics[key] for key in ("accuracy", "roc_auc", "cost")}, **found}


def chosen_strength(mitigation: Mitigation, points: Sequence[Mapping[str, Any]]) -> float:
    """The least strength that reaches the target, or the one that is asked for.

    Raises:
        PlatformError: ``code="bad_config"``: no strength that was tried reaches it.
    """
    if mitigation.target is None:
        return mitigation.strength
    reached = [one["strength"] for one in points if (one["selection_ratio"] or 0.0) >= mitigation.target]
    if reached:
        return float(min(reached))
    more = [*mitigation.strengths, 2 * max(mitigation.strengths)]
    said = ", ".join(f"{one['strength']:g}: {one['selection_ratio'] or 0:.3f}" for one in points)
    raise PlatformError(
        f"no strength of {mitigation.method} reaches mitigation.target {mitigation.target:g} on the validation rows",
        detail=f"ratio of selection by strength: {said}",
        fix=f"try stronger ones: {setting('mitigation.strengths', more)}",
        code="bad_config",
    )
