"""Bundles that the serving benchmark serves: a model of almost no work, and a transformer of BERT-base's size."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from contracts.bundle import Bundle, write_bundle

FLOATS = ("a", "b", "c", "d")
_LINEAGE = {"code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": "2026-01-01T00:00:00Z"}


def publish(source: Path, golden: list[dict[str, Any]], root: Path, **fields: Any) -> Bundle:
    """Write the folder `source` with its golden examples as a bundle below `root`."""
    (source / "golden.jsonl").write_text("".join(json.dumps(line) + "\n" for line in golden))
    common = {"task": "bench", "recipe": "bench", "gate": {"passed": True, "checks": []}, "lineage": _LINEAGE}
    return write_bundle(source, root, common | fields)


def four_floats(folder: Path) -> Bundle:
    """A logistic model of four numbers as ONNX: a few microseconds of work."""
    from onnx import TensorProto, helper

    weights = np.array([0.4, -0.2, 0.1, 0.3])
    initial = [
        helper.make_tensor("w", TensorProto.DOUBLE, [4, 1], weights),
        helper.make_tensor("one", TensorProto.DOUBLE, [1], [1.0]),
    ]
    nodes = [
        helper.make_node("MatMul", ["features", "w"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["positive"]),
        helper.make_node("Sub", ["one", "positive"], ["negative"]),
        helper.make_node("Concat", ["negative", "positive"], ["probabilities"], axis=1),
        helper.make_node("Identity", ["features"], ["contributions"]),
    ]
    outputs = [("probabilities", 2), ("contributions", 4)]
    graph = helper.make_graph(
        nodes,
        "four_floats",
        [helper.make_tensor_value_info("features", TensorProto.DOUBLE, ["rows", 4])],
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["rows", width]) for name, width in outputs],
        initial,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    source = folder / "source"
    (source / "model").mkdir(parents=True)
    (source / "model" / "model.onnx").write_bytes(model.SerializeToString())
    row = [0.5, 1.5, -2.0, 3.0]
    positive = 1 / (1 + float(np.exp(-(weights @ row))))
    golden = [{"inputs": dict(zip(FLOATS, row, strict=True)), "probabilities": [1 - positive, positive]}]
    signature = {"inputs": [{"name": name, "dtype": "float64"} for name in FLOATS], "classes": ["no", "yes"]}
    return publish(
        source, golden, folder / "bundles", name="floats", modality="tabular", engine="onnx", signature=signature
    )


class SyntheticEngine:
    """5 ms and 0.5 ms a row, one call at a time, as an accelerator would."""

    def predict(self, columns: Any) -> Any:
        rows = len(next(iter(columns.values())))
        time.sleep(0.005 + 0.0005 * rows)
        positive = 1 / (
            1 + np.exp(-(0.4 * columns["a"] - 0.2 * columns["b"] + 0.1 * columns["c"] + 0.3 * columns["d"]))
        )
        return np.column_stack([1 - positive, positive])

    def explain(self, columns: Any, top: int) -> Any:
        return [[] for _ in next(iter(columns.values()))]


if __name__ == "__main__":  # serves the four floats with the synthetic engine
    from services.model import runtime
    from services.server import launch

    vars(runtime)["load_engine"] = lambda bundle, **_: SyntheticEngine()
    sys.exit(launch.main(sys.argv[1:]))
