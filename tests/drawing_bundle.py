"""A tiny model that draws one gray for each class, and a reference that looks at grays."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pandas as pd

from contracts.bundle import Bundle, BundleDocument, Golden, write_bundle
from contracts.engines import load_engine
from contracts.images import ImageSpec
from contracts.problems.image import Drawn
from contracts.provenance import plain_png

LABELS = ["dark", "grey", "light grey"]
GRAYS = (-0.8, 0.0, 0.8, 0.4)  # from -1 to 1; the last one is that of no class
SIDE = 8
OUTPUT: dict[str, Any] = {
    "problem": "image", "labels": LABELS, "width": SIDE, "height": SIDE, "mode": "L", "max_steps": 20,
}  # fmt: skip
INPUTS: list[dict[str, Any]] = [
    {"name": "prompt", "dtype": "string"},
    {"name": "seed", "dtype": "int64", "default": 0, "optional": True, "minimum": 0},
    {"name": "steps", "dtype": "int64", "default": 4, "optional": True, "minimum": 1, "maximum": 20},
    {"name": "guidance", "dtype": "float64", "default": 1.0, "optional": True, "minimum": 1, "maximum": 20},
]


def flow_source(folder: Path, **spec: Any) -> None:
    """Write ``model/``: its direction ends at the gray of the class, whatever the noise."""
    import onnx
    from onnx import TensorProto, helper

    node = helper.make_node
    nodes = [
        node("Gather", ["grays", "label"], ["gray"]),
        node("Unsqueeze", ["gray", "ends"], ["wanted"]),
        node("Sub", ["wanted", "pixels"], ["way"]),
        node("Sub", ["one", "time"], ["rest"]),
        node("Unsqueeze", ["rest", "ends"], ["left"]),
        node("Div", ["way", "left"], ["direction"]),
    ]
    shape: list[str | int | None] = ["rows", 1, SIDE, SIDE]
    graph = helper.make_graph(
        nodes,
        "grays",
        [
            helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("time", TensorProto.FLOAT, ["rows"]),
            helper.make_tensor_value_info("label", TensorProto.INT64, ["rows"]),
        ],
        [helper.make_tensor_value_info("direction", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor("grays", TensorProto.FLOAT, [len(GRAYS)], GRAYS),
            helper.make_tensor("ends", TensorProto.INT64, [3], [1, 2, 3]),
            helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
    (folder / "model").mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(folder / "model" / "model.onnx"))
    settings = {"steps": 4, "method": "heun"} | spec
    (folder / "model" / "flow.json").write_text(pd.Series(settings).to_json())


def grays(folder: Path, name: str = "grays", any_text: bool = False, **spec: Any) -> Bundle:
    """The bundle, whose golden examples are one of each class."""
    source = folder / "source"
    flow_source(source, **spec)
    fields: dict[str, Any] = {
        "name": name,
        "task": "made",
        "recipe": "made",
        "modality": "drawing",
        "engine": "flow",
        "signature": {"inputs": INPUTS, "output": {**OUTPUT, "any_text": any_text}},
        "gate": {"passed": True, "checks": []},
        "lineage": {"code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": "now"},
    }
    document = BundleDocument.model_validate({**fields, "files": {}})
    signature = document.signature
    answers = load_engine(Bundle(source, document, "")).predict(columns(LABELS))
    lines = [
        Golden(inputs={"prompt": label}, expected=signature.problem.expected(signature.output, answers, at))
        for at, label in enumerate(LABELS)
    ]
    (source / "golden.jsonl").write_text("".join(one.model_dump_json() + "\n" for one in lines))
    return write_bundle(source, folder / "bundles", fields)


def columns(prompts: Any, seed: int = 0, steps: float = np.nan, guidance: float = np.nan) -> dict[str, Any]:
    """Rows as an engine takes them."""
    rows = len(prompts)
    return {
        "prompt": np.array(prompts, dtype=object),
        "seed": np.full(rows, seed),
        "steps": np.full(rows, steps),
        "guidance": np.full(rows, guidance),
    }


def pictures(rows: int, seed: int, shift: float = 0.0) -> tuple[list[str], Any]:
    """Classes in turn, and a picture of each: its gray, a little lighter or darker in every quarter."""
    rng = np.random.default_rng(seed)
    found = np.empty(rows, dtype=object)
    labels = [LABELS[at % len(LABELS)] for at in range(rows)]
    for at in range(rows):
        gray = (GRAYS[at % len(LABELS)] + 1) * 127.5 + shift
        quarters = np.kron(rng.normal(0, 8, (2, 2)), np.ones((SIDE // 2, SIDE // 2)))
        pixels = np.clip(gray + quarters, 0, 255).astype(np.uint8)[..., None]
        found[at] = Drawn(pixels, labels[at], {"seed": at})
    return labels, found


@lru_cache
def reference_folder() -> Path:
    """A data set's folder with ``train`` and ``valid``, and a reference whose features are the means of quarters."""
    import json

    import onnx
    from onnx import TensorProto, helper

    folder = Path(mkdtemp(prefix="reference-"))
    for name, rows, seed in (("train", 120, 1), ("valid", 90, 2)):
        frame_of(*pictures(rows, seed)).to_parquet(folder / f"{name}.parquet", index=False)
    nodes = [
        helper.make_node("AveragePool", ["pixels"], ["means"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["means"], ["vector"]),
        helper.make_node("ReduceMean", ["vector"], ["bright"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["bright", "grays"], ["apart"]),
        helper.make_node("Abs", ["apart"], ["away"]),
        helper.make_node("Neg", ["away"], ["probabilities"]),
    ]
    levels = [(gray + 1) / 2 for gray in GRAYS[:3]]
    graph = helper.make_graph(
        nodes,
        "quarters",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["rows", 1, SIDE, SIDE])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", 3]),
            helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["rows", 4]),
        ],
        [helper.make_tensor("grays", TensorProto.FLOAT, [1, 3], levels)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
    onnx.save(model, str(folder / "reference.onnx"))
    spec = ImageSpec(width=SIDE, height=SIDE, mode="L", fit="crop")
    (folder / "image.json").write_text(spec.model_dump_json())
    about = {"name": "quarters", "sha256": "0" * 64, "classes": LABELS, "features": 4, "valid_accuracy": 1.0}
    (folder / "reference.json").write_text(json.dumps(about))
    return folder


def frame_of(labels: list[str], drawn: Any) -> pd.DataFrame:
    """Rows of a data set with these images."""
    frame = pd.DataFrame({"label": labels, "image": [plain_png(one.pixels) for one in drawn]})
    frame.attrs["dataset"] = str(reference_folder()) if reference_folder.cache_info().currsize else ""
    return frame


def held_out(rows: int) -> pd.DataFrame:
    """Rows of the test part, beside their reference."""
    reference_folder()
    return frame_of(*pictures(rows, 3))
