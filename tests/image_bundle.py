"""A tiny image model and pictures for it: it answers with the mean of the pixels."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

from contracts.images import ImageSpec

SIGNATURE = {"inputs": [{"name": "image", "dtype": "bytes"}], "classes": ["dark", "bright"]}


def picture(shade: Any, *, mode: str = "RGB", kind: str = "PNG", size: int = 8) -> bytes:
    """A picture of one shade of gray, 0 to 255, or of one color."""
    from PIL import Image

    color = shade if isinstance(shade, tuple) or mode == "L" else (shade,) * 3
    buffer = io.BytesIO()
    Image.new(mode, (size, size), color).save(buffer, kind)
    return buffer.getvalue()


def bar() -> bytes:
    """A bright bar on a dark ground, as a file."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (24, 24), (30, 40, 20))
    ImageDraw.Draw(image).rectangle((5, 10, 18, 13), fill=(220, 210, 160))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def disc() -> bytes:
    """A bright disc on a dark ground, as a file."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (64, 64), (30, 40, 20))
    ImageDraw.Draw(image).ellipse((20, 24, 40, 44), fill=(220, 210, 160))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def shades(folder: Path, side: int = 8) -> Path:
    """A data set of dark and bright images, 40 for training and 10 for validation."""
    import numpy as np
    import pandas as pd
    from PIL import Image

    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for name, rows in (("train", 40), ("valid", 10)):
        labels, files = ["dark", "bright"] * (rows // 2), []
        for label in labels:
            shade = rng.integers(0, 110, (side, side, 3)) + (140 if label == "bright" else 0)
            buffer = io.BytesIO()
            Image.fromarray(shade.astype(np.uint8)).save(buffer, "PNG")
            files.append(buffer.getvalue())
        pd.DataFrame({"image": files, "label": labels}).to_parquet(folder / f"{name}.parquet")
    return folder


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b"")]
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encoded(file: bytes) -> str:
    """As it stands in JSON."""
    return base64.b64encode(file).decode()


def image_source(
    folder: Path, *, rows: str | int = "rows", vector: bool = False, ood: bool = False, **spec: Any
) -> None:
    """Write ``model/`` and ``golden.jsonl`` of a bundle that says how bright an image is; its vector is its color, and
    the brighter, the further it is from what it knows: twice its brightness."""
    import onnx
    from onnx import TensorProto, helper

    settings = ImageSpec(**{"width": 8, "height": 8} | spec)
    sides = [len(settings.mode), settings.height, settings.width]
    shape = sides if settings.layout == "channels_first" else [*sides[1:], sides[0]]
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "last"], ["bright"]),
        helper.make_node("Sub", ["one", "bright"], ["rest"]),
        helper.make_node("Sub", ["bright", "bright"], ["nothing"]),
        helper.make_node("Concat", ["nothing" if settings.softmax else "rest", "bright"], ["probabilities"], axis=1),
    ]
    constants = [
        helper.make_tensor("last", TensorProto.INT64, [1], [1]),
        helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]),
    ]
    answers = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [rows, 2])]
    if vector:
        nodes.append(helper.make_node("ReduceMean", ["pixels"], ["vector"], axes=[2, 3], keepdims=0))
        answers.append(helper.make_tensor_value_info("vector", TensorProto.FLOAT, [rows, sides[0]]))
    if ood:
        nodes.append(helper.make_node("Add", ["bright", "bright"], ["ood_score"]))
        answers.append(helper.make_tensor_value_info("ood_score", TensorProto.FLOAT, [rows, 1]))
    graph = helper.make_graph(
        nodes,
        "shades",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [rows, *shape])],
        answers,
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
    (folder / "model").mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(folder / "model" / "model.onnx"))
    (folder / "model" / "image.json").write_text(settings.model_dump_json())
    if not settings.softmax:
        golden = {"inputs": {"image": encoded(picture(51))}, "probabilities": [0.8, 0.2]}
        (folder / "golden.jsonl").write_text(json.dumps(golden) + "\n")
