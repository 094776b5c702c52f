"""A model that was just written, by the engine that will serve it: what recipes measure before they return."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.task import TaskConfig, class_output

if TYPE_CHECKING:
    from contracts.bundle import Bundle
    from pipelines.recipes.text.base import TextRecipe
    from pipelines.recipes.text.examples import Examples

COMPARED = 64  # validation rows that show how exact the arithmetic of the served form is


def served_as(folder: Path, examples: Any, config: TaskConfig, engine: str) -> Bundle:
    """The model files in `folder` as the bundle that they will be; `examples` has ``task`` and ``classes``."""
    from pipelines.evaluation.scoring import provisional

    task = examples.task
    output = class_output(task, config, examples.classes)
    signature = {"inputs": [item.model_dump() for item in task.inputs(config)], "output": output}
    lineage = {"code_version": "", "data_version": "", "source": "", "seed": config.seed}
    fields = {"name": task.name, "task": task.name, "recipe": config.recipe, "modality": task.modality}
    return provisional(folder.parent, {**fields, "engine": engine, "signature": signature, "lineage": lineage})


def engine_of(folder: Path, examples: Any, config: TaskConfig, engine: str) -> Any:
    """The engine `engine` of the model files in `folder`, on the CPU."""
    from contracts.engines import load_engine

    bundle = served_as(folder, examples, config, engine)
    return load_engine(bundle, device="cpu")  # exact arithmetic, also where there is a GPU


def apart(examples: Examples, config: TextRecipe, engine: str, out: Path) -> float:
    """Twice the largest difference between a row's answer alone and among others, which int8 activations make."""
    import numpy as np

    loaded = engine_of(out, examples, config, engine)
    rows = {name: examples.valid[name].to_numpy(object)[:COMPARED] for name in examples.fields}
    together = loaded.predict(rows)
    alone = [loaded.predict({k: v[at : at + 1] for k, v in rows.items()})[0] for at in range(len(together))]
    return max(1e-3, 2 * float(np.abs(together - np.array(alone)).max()))
