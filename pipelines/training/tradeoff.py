"""What treating groups alike costs: each strength of a mitigation, measured on the validation rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import PlatformError
from pipelines.settings import setting
from pipelines.training.mitigation import Mitigation

if TYPE_CHECKING:
    from pipelines.task import Task, TaskConfig


def by_strength(
    task: Task,
    config: TaskConfig,
    classes: Sequence[str],
    dataset: Path,
    out: Path,
    checkpoints: Path,
    train: Callable[[Mitigation, Path, Path], dict[str, Any]],
) -> dict[str, Any]:
    """One model for each method and strength that is tried; the one that is taken is written to `out`.

    Args:
        config: a recipe with `mitigation`.
        train: by a mitigation, to a folder, with checkpoints in another; gives `TaskConfig.train`'s result.
    """
    asked: Mitigation = config.mitigation  # type: ignore[attr-defined]
    asked.check_reason()
    points: list[dict[str, Any]] = []
    fits: dict[float, dict[str, Any]] = {}
    for method in dict.fromkeys((asked.method, *asked.compare)):
        for strength in sorted({*asked.strengths, asked.strength}):
            one = replace(asked, method=method, strength=strength)
            folder = _kept(checkpoints, one)
            done, model = folder / "done.json", folder / "model"
            if not done.exists():
                shutil.rmtree(model, ignore_errors=True)
                fitted = train(one, model, folder / "rounds")
                done.with_suffix(".part").write_text(json.dumps(fitted))
                done.with_suffix(".part").replace(done)
            found = json.loads(done.read_text())
            if method == asked.method:
                fits[strength] = found
            points.append({"method": method, **tried(task, config, classes, dataset, model, found, strength)})
    taken = chosen_strength(asked, [one for one in points if one["method"] == asked.method])
    shutil.copytree(_kept(checkpoints, replace(asked, strength=taken)) / "model", out, dirs_exist_ok=True)
    parameters = {**fits[taken]["parameters"], "mitigation": asked.method, "strength": taken}
    tradeoff = {"column": asked.column, "method": asked.method, "points": points, "taken": taken}
    return {**fits[taken], "parameters": parameters, "tradeoff": tradeoff}


def _kept(checkpoints: Path, one: Mitigation) -> Path:
    """Where the model of one method and strength is kept."""
    return checkpoints / f"{one.method}-{one.strength:g}"


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
    from pipelines.evaluation.group_cuts import moved
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
    groups = read_groups(dataset, "valid", frame["id"])
    column = config.mitigation.column  # type: ignore[attr-defined]
    if groups is not None and column and document.decision is not None:
        positive = list(classes).index(document.decision.positive)
        answers = moved(answers, groups[column], positive, document.decision)
    evaluation = get_evaluation(document.signature.output.problem)
    given = (frame, answers, document.signature.output, document.decision)
    metrics = evaluation.measure_for(*given)(None)
    outcome = evaluation.outcome(*given, getattr(task, "favourable", ""))
    found: dict[str, Any] = {"selection_ratio": None}
    if groups is not None and column and outcome is not None:
        measured = fairness.measure(groups[[column]], outcome, config.gate.fairness.min_rows)
        found = {key: measured["columns"][column][key] for key in fairness.MEASURES}
    return {"strength": strength, **{key: metrics.get(key) for key in ("accuracy", "roc_auc", "cost")}, **found}


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
