"""A tiny detector and pictures for it: it finds a spot in the middle, as sure as the image is bright."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from contracts.bundle import Bundle, BundleDocument, Golden, write_bundle
from contracts.engines import load_engine
from contracts.images import ImageSpec
from tests.image_bundle import encoded, picture

OUTPUT = {"problem": "detection", "labels": ["light", "spot"], "thresholds": [0.9, 0.5], "longest": 4}
SIDE = 8
# In pixels of the network: a spot in the middle, a light that covers the upper half and is half as sure.
FOUND = [[2.0, 2.0, 6.0, 6.0, 1.0, 1.0], [0.0, 0.0, 8.0, 4.0, 0.5, 0.0], [1.0, 1.0, 1.0, 5.0, 1.0, 1.0]]


def detector_source(folder: Path, **spec: Any) -> None:
    """Write ``model/``; the third of what it finds has no area."""
    import onnx
    from onnx import TensorProto, helper

    settings = ImageSpec(**{"width": SIDE, "height": SIDE, "fit": "pad"} | spec)
    found = np.array(FOUND, np.float32)
    nodes = [
        helper.make_node("ReduceMax", ["pixels"], ["bright"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["bright", "ends"], ["each"]),
        helper.make_node("Mul", ["each", "scores"], ["sure"]),
        helper.make_node("Add", ["sure", "rest"], ["detections"]),
    ]
    weights = {"scores": found * (np.arange(6) == 4), "rest": found * (np.arange(6) != 4)}
    constants = [
        helper.make_tensor("ends", TensorProto.INT64, [2], [1, 2]),
        *(helper.make_tensor(name, TensorProto.FLOAT, [1, 3, 6], value.ravel()) for name, value in weights.items()),
    ]
    graph = helper.make_graph(
        nodes,
        "spots",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["rows", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("detections", TensorProto.FLOAT, ["rows", 3, 6])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
    (folder / "model").mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(folder / "model" / "model.onnx"))
    (folder / "model" / "image.json").write_text(settings.model_dump_json())


def spots(folder: Path, **spec: Any) -> Bundle:
    """The bundle, whose golden examples are a bright and a dark picture."""
    source = folder / "source"
    detector_source(source, **spec)
    fields: dict[str, Any] = {
        "name": "spots",
        "task": "made",
        "recipe": "made",
        "modality": "image",
        "engine": "detector",
        "signature": {"inputs": [{"name": "image", "dtype": "bytes"}], "output": OUTPUT},
        "gate": {"passed": True, "checks": []},
        "lineage": {"code_version": "c", "data_version": "d", "source": "s", "seed": 1, "created": "now"},
    }
    document = BundleDocument.model_validate({**fields, "files": {}})
    signature = document.signature
    files = np.empty(2, object)
    files[:] = [picture(230, size=16), picture(40, size=16)]
    answers = load_engine(Bundle(source, document, "")).predict({"image": files})
    lines = [
        Golden(inputs={"image": encoded(file)}, expected=signature.problem.expected(signature.output, answers, at))
        for at, file in enumerate(files)
    ]
    (source / "golden.jsonl").write_text("".join(one.model_dump_json() + "\n" for one in lines))
    return write_bundle(source, folder / "bundles", fields)
