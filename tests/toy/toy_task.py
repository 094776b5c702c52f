"""A small tabular task, complete but for features, that steps and workflows are tested with."""

from __future__ import annotations

import time
from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from contracts.bundle import Input
from pipelines.task import STRICT, Column, DataConfig, GateConfig, TaskConfig, Threshold


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ToyModel:
    """Boosting rounds, and seconds to wait in each, so that a test can kill the training."""

    rounds: int = 15
    pause: float = 0.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ToyConfig(TaskConfig):
    """A recipe of the toy task."""

    model: ToyModel = field(default_factory=ToyModel)

    def train(self, task: Any, dataset: Path, out: Path, checkpoints: Path, progress: Any) -> dict[str, Any]:
        import numpy as np
        import pandas as pd

        from contracts.tabular_engine import matrix
        from pipelines.training.onnx_tabular import LinearForm, save_linear

        done = _rounds_before(checkpoints, self.model, progress)
        frame = pd.read_parquet(dataset / "train.parquet")
        inputs = task.inputs(self)
        x = matrix(inputs, {item.name: frame[item.name].to_numpy() for item in inputs})
        y = (frame["label"] == "yes").to_numpy(dtype=float)
        mean, deviation = x.mean(axis=0), x.std(axis=0)
        scaled, weights, bias = (x - mean) / deviation, np.zeros(x.shape[1]), 0.0
        for _ in range(20 * self.model.rounds):  # plain gradient descent: no library to import
            error = 1 / (1 + np.exp(-(scaled @ weights + bias))) - y
            weights, bias = weights - scaled.T @ error / len(y), bias - float(error.mean())
        form = LinearForm(
            median=mean,
            mean=mean,
            deviation=deviation,
            weights=weights,
            absent=np.zeros(len(weights)),
            bias=bias,
            log_scale=False,
        )
        save_linear(form, {"kind": "none"}, out / "model.onnx")
        rounds = range(1, self.model.rounds + 1)
        return {
            "engine": "onnx",
            "output": {"problem": "classification", "classes": ["no", "yes"]},
            "decision": {
                "positive": "yes",
                "threshold": 0.5,
                "false_positive_cost": 1.0,
                "false_negative_cost": "distance",
            },
            "history": [{"valid_loss": 1.0 / n, "valid_auc": 1 - 0.5 / n} for n in rounds],
            "parameters": {"rounds": self.model.rounds, "resumed_after": done},
            "device": "cpu",
        }


class Toy:
    """Label `late` is yes when `distance` is large, with noise; `kind` helps a little."""

    name = "toy"
    title = "Will the parcel be late?"
    modality = "tabular"
    columns = (
        Column(name="parcel", dtype="string", unique=True),
        Column(name="sent", dtype="timestamp"),
        Column(name="distance", dtype="float64", minimum=0, maximum=1000),
        Column(name="stops", dtype="int64", minimum=0),
        Column(name="kind", dtype="string", categories=("box", "letter", "pallet")),
        Column(name="note", dtype="string", nullable=True, max_length=50),
        Column(name="late", dtype="string", categories=("no", "yes")),
    )
    label, id, timestamp = "late", "parcel", "sent"
    entities: tuple[str, ...] = ()
    classes = ("no", "yes")
    feature_service = None
    recipes: ClassVar[dict[str, TaskConfig]] = {
        "tree": ToyConfig(
            recipe="tree",
            data=DataConfig(max_bad_share=0.2),
            gate=GateConfig(
                primary="average_precision",
                thresholds=(Threshold(metric="roc_auc", minimum=0.6), Threshold(metric="kind:box:recall", minimum=0.0)),
                max_latency_ms=1000.0,
            ),
        )
    }
    default_recipe = "tree"

    def default_source(self, config: Any) -> Any:
        import pyarrow as pa

        yield pa.Table.from_pandas(toy_frame(400, config.seed), preserve_index=False)

    def split(self, frame: Any, config: Any) -> Any:
        frame = frame.sort_values("sent", kind="stable").reset_index(drop=True)
        out = frame[["distance", "stops", "kind"]].copy()
        out["id"], out["label"], out["slice_kind"] = frame["parcel"], frame["late"], frame["kind"]
        cut = [int(len(out) * share) for share in (0.5, 0.7)]
        return {"train": out[: cut[0]], "valid": out[cut[0] : cut[1]], "test": out[cut[1] :]}

    def inputs(self, config: Any) -> list[Input]:
        return [
            Input(name="distance", dtype="float64", minimum=0, maximum=1000, description="km"),
            Input(name="stops", dtype="int64", default=0),
            Input(name="kind", dtype="string", categories=["box", "letter", "pallet"]),
        ]

    def request(self, config: Any) -> list[Input]:
        return []


def _rounds_before(checkpoints: Path, model: ToyModel, progress: Any) -> int:
    """Pretend to work in rounds with a checkpoint after each; returns how many a killed training had done."""
    checkpoint = checkpoints / "done.txt"
    done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    for number in range(done + 1, model.rounds + 1):
        time.sleep(model.pause)
        checkpoint.write_text(str(number))
        progress(number, model.rounds, loss=1.0 / number)
    return done


def toy_frame(rows: int, seed: int = 7) -> Any:
    """Raw rows of the toy task, typed as its columns."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(seed)
    distance = rng.uniform(0, 1000, rows).round(3)
    kind = rng.choice(["box", "letter", "pallet"], rows)
    risk = distance / 1000 + (kind == "pallet") * 0.2 + rng.normal(0, 0.3, rows)
    sent = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(rows), unit="min")
    return pd.DataFrame(
        {
            "parcel": [f"P{i:06d}" for i in range(rows)],
            "sent": sent.as_unit("us"),
            "distance": distance,
            "stops": rng.integers(0, 9, rows),
            "kind": kind,
            "note": [f"note {i % 7}" for i in range(rows)],
            "late": np.where(risk > 0.8, "yes", "no"),
        }
    )


TASK = Toy()
